//! Somebody between the agent and the TPM: listens, changes answers, slips in commands.
#![allow(dead_code)] // each test file uses a part

use halfkey_agent::tpm::{Location, Tpm};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What the interposer does with one command.
pub struct Bus<'a> {
    tpm: &'a mut TcpStream,
}

impl Bus<'_> {
    /// Has the TPM answer a command.
    pub fn ask(&mut self, command: &[u8]) -> Vec<u8> {
        self.tpm.write_all(command).unwrap();
        read_frame(self.tpm).expect("the TPM answers")
    }

    /// Extends PCR 11 in between.
    pub fn move_pcr_11(&mut self) {
        let event = [
            &[0x80, 2, 0, 0, 0, 30, 0, 0, 1, 0x3c][..], // PCR_Event, with sessions
            &[0, 0, 0, 11],
            &[0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0], // empty password
            &[0, 1, 7],
        ];
        let answer = self.ask(&event.concat());
        assert_eq!(answer[6..10], [0; 4]);
    }
}

/// The command code of a frame.
pub fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

pub const CC_PCR_EVENT: u32 = 0x13c;
pub const CC_PCR_READ: u32 = 0x17e;
pub const CC_QUOTE: u32 = 0x158;
pub const CC_UNSEAL: u32 = 0x15e;
pub const CC_START_AUTH_SESSION: u32 = 0x176;
pub const CC_CREATE_PRIMARY: u32 = 0x131;
pub const CC_ACTIVATE_CREDENTIAL: u32 = 0x147;

/// An answer that is only a response code.
pub fn refusal(code: u32) -> Vec<u8> {
    [&[0x80, 1, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

/// A TCP peer in front of a TPM. `act` gets each command and gives the answer's bytes;
/// `None` hangs up.
pub struct Interposer {
    address: SocketAddr,
    traffic: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Interposer {
    pub fn new(tpm: &Location, act: impl FnMut(&mut Bus, &[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let Location::Tcp(tpm) = *tpm else { panic!("a TCP location") };
        let mut tpm = TcpStream::connect(tpm).unwrap();
        tpm.set_nodelay(true).unwrap();
        Self::serve(1, act, move |act, command| act(&mut Bus { tpm: &mut tpm }, command))
    }

    /// The same for an agent that opens the TPM so many times, one after the other.
    pub fn opened(
        times: usize,
        tpm: &Location,
        act: impl FnMut(&mut Bus, &[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let Location::Tcp(tpm) = *tpm else { panic!("a TCP location") };
        let mut tpm = TcpStream::connect(tpm).unwrap();
        tpm.set_nodelay(true).unwrap();
        Self::serve(times, act, move |act, command| act(&mut Bus { tpm: &mut tpm }, command))
    }

    /// A peer with no TPM behind it.
    pub fn alone(mut act: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        Self::serve(1, (), move |(), command| act(command))
    }

    fn serve<A: Send + 'static>(
        times: usize,
        mut act: A,
        mut answer: impl FnMut(&mut A, &[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let traffic = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&traffic);
        let thread = std::thread::spawn(move || {
            for _ in 0..times {
                let (mut agent, _) = listener.accept().unwrap();
                agent.set_nodelay(true).unwrap();
                while let Some(command) = read_frame(&mut agent) {
                    let Some(bytes) = answer(&mut act, &command) else { break };
                    let mut seen = seen.lock().unwrap();
                    seen.extend(&command);
                    seen.extend(&bytes);
                    // A frame that is not whole is the last one: hang up behind it.
                    let whole =
                        bytes.get(2..6).is_some_and(|size| size == (bytes.len() as u32).to_be_bytes());
                    if agent.write_all(&bytes).is_err() || !whole {
                        break;
                    }
                }
                let _ = agent.shutdown(Shutdown::Both);
            }
        });
        Self { address, traffic, thread: Some(thread) }
    }

    pub fn open(&self) -> Tpm {
        Tpm::open(&self.location()).unwrap()
    }

    pub fn location(&self) -> Location {
        Location::Tcp(self.address)
    }

    /// All that crossed the bus, after the agent has gone.
    pub fn traffic(mut self) -> Vec<u8> {
        self.thread.take().unwrap().join().unwrap();
        self.traffic.lock().unwrap().clone()
    }
}

fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 10];
    stream.read_exact(&mut frame).ok()?;
    let size = u32::from_be_bytes(frame[2..6].try_into().unwrap()) as usize;
    frame.resize(size, 0);
    stream.read_exact(&mut frame[10..]).ok()?;
    Some(frame)
}

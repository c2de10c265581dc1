//! The fingerprint of RSA keys that can be factored (ROCA, CVE-2017-15361).
//!
//! Infineon's library made primes as k * M + (65537^a mod M), where M is the product of the first primes, to look for fewer
//! candidates. So such a modulus is a power of 65537 modulo M, and modulo every prime in M. A modulus of other making is
//! that for all of the primes below by chance once in 2^30 (Nemec, Sys, Svenda, Klinec, Matyas: "The Return of
//! Coppersmith's Attack", CCS 2017). With a TPM of these years the private half of an RSA EK can be computed from the
//! certificate, and then anything activates its credentials.

/// The odd ones of the first 39 primes: those that M has for every length of key.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a modulus (big-endian) has the fingerprint.
pub fn is_marked(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| {
        let residue = modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        is_power_of_65537(residue, *prime)
    })
}

fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let generator = 65537 % prime;
    let mut power = 1;
    loop {
        if power == residue {
            return true;
        }
        power = power * generator % prime;
        if power == 1 {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two primes made in that way with the first 126 primes, as for keys of 2048 bits.
    const MARKED: &str = include_str!("../../tests/fixtures/roca.hex");

    fn marked() -> Vec<u8> {
        let digits: String = MARKED.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_key_of_that_making_is_known_by_its_modulus() {
        let modulus = marked();
        assert_eq!(modulus.len(), 256);
        assert!(is_marked(&modulus));
        // The same with another byte is anybody's.
        for at in [0, 100, 255] {
            let mut other = modulus.clone();
            other[at] ^= 2;
            assert!(!is_marked(&other), "byte {at}");
        }
        assert!(!is_marked(&[]) && !is_marked(&[0; 256]));
    }

    proptest! {
        #[test]
        fn other_numbers_are_not(mut modulus in proptest::collection::vec(any::<u8>(), 256)) {
            modulus[0] |= 0x80;
            modulus[255] |= 1;
            prop_assert!(!is_marked(&modulus));
        }
    }
}

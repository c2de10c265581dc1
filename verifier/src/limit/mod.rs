//! What keeps one source from taking all there is: rates, and who goes when slots for connections or memory run out.

mod connections;
mod memory;
mod metered_stream;
mod proved;
mod ranking;
mod rate;
mod room;
mod source;
mod turns;

pub use connections::{ConnectionTable, PeerClass, Permit, Proved, Slot, Work};
pub use memory::{Full, Pool, Share};
pub use metered_stream::MeteredStream;
pub use ranking::Ranking;
pub use rate::{Counted, Counts, Rate, SourceRate};
pub use room::Room;
pub use source::{Holder, Source, first_to_go};
pub use turns::{Busy, Turn, Turns};

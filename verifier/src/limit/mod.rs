//! What keeps one source from taking all there is: rates, and who goes when places or memory run out.

mod memory;
mod rate;
mod source;
mod table;

pub use memory::{Full, Pool, Share};
pub use rate::{Counted, Counts, Rate, SourceRate};
pub use source::{Holder, Source, first_to_go};
pub use table::{PeerClass, Permit, Place, Table, Work};

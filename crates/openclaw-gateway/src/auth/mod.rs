//! Who is allowed in. Evidence and proofs are gathered elsewhere; here they become one decision.

pub mod decide;
pub mod evidence;
pub mod hosts;
pub mod rate_limit;

pub use decide::{Decision, Policy};
pub use evidence::{Evidence, Peer};

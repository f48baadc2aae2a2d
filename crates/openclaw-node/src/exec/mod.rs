//! Running programs: what a request's words mean, what environment it gets, and how it is kept from outliving anybody.

pub mod argv;
pub mod environment;
pub mod guard;
pub mod process;
pub mod programs;

//! Reaching a gateway from elsewhere, in network namespaces and with a real sshd.

mod home;
mod paths;
mod report;
mod ssh;
mod tunnel;

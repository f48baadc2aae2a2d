//! Reaching a gateway from elsewhere, in network namespaces and with a real sshd.

mod connect;
mod far;
mod heal;
mod home;
mod interop;
mod paths;
mod report;
mod ssh;
mod tunnel;

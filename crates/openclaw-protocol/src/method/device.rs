//! Device pairing and device tokens.

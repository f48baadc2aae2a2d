//! Fuzz targets, as plain functions: whatever the bytes, nothing panics and the promises below hold.
//!
//! The same bodies run twice: under libFuzzer (`fuzz/fuzz_targets`, nightly) and on stable over the seed corpora and a
//! bounded number of mutations of them (`tests/fuzz_corpus.rs`). See `docs/fuzzing.md`.

mod config;
mod http_head;
mod input;
pub mod mutate;
mod network;
mod pairing;
mod protocol;
mod ws;

pub use config::{config_document, config_edit, config_path, config_redact};
pub use http_head::http_head;
pub use network::{evidence, gateway_url};
pub use pairing::pairing;
pub use protocol::{connect, device_proof, frame, setup_code};
pub use ws::websocket;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of its corpus directory and of its libFuzzer binary.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Mutations tried by the bounded run; chosen so that each target takes a few seconds without optimisation.
    pub mutations: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame, mutations: 40_000 },
    Target { name: "connect", run: connect, mutations: 20_000 },
    Target { name: "device_proof", run: device_proof, mutations: 4_000 },
    Target { name: "config_document", run: config_document, mutations: 10_000 },
    Target { name: "config_edit", run: config_edit, mutations: 5_000 },
    Target { name: "config_path", run: config_path, mutations: 40_000 },
    Target { name: "config_redact", run: config_redact, mutations: 10_000 },
    Target { name: "gateway_url", run: gateway_url, mutations: 40_000 },
    Target { name: "websocket", run: websocket, mutations: 6_000 },
    Target { name: "http_head", run: http_head, mutations: 10_000 },
    Target { name: "evidence", run: evidence, mutations: 20_000 },
    Target { name: "pairing", run: pairing, mutations: 2_000 },
    Target { name: "setup_code", run: setup_code, mutations: 20_000 },
];

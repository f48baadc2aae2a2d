//! Nodes: pairing of capability surfaces, listing, invocation, voice wake.

//! What the agent can do here: nodes, programs on this host, messages, sessions, the gateway itself.

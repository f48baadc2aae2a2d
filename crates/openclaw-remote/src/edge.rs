//! `gateway.remote.edgeAuth`: headers by which a client gets past an identity-aware proxy in front of its gateway.
//!
//! They are credentials of the edge, not of the gateway: they go into the upgrade request, over TLS, to the configured
//! URL, and never along with a redirect.

use openclaw_config::gateway::edge_header_problem;
use openclaw_protocol::Secret;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};

use crate::error::Error;

/// The headers, fit to be sent.
///
/// # Errors
/// [`Error::EdgeAuth`], naming the header and never its value.
pub(crate) fn headers(edge: &[(String, Secret)]) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let header = |(name, value): &(String, Secret)| {
        let refused = |reason: &str| Error::EdgeAuth { reason: format!("header {name:?}: {reason}") };
        if let Some(problem) = edge_header_problem(name) {
            return Err(refused(problem));
        }
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("not a header name"))?;
        let mut value = HeaderValue::from_str(value.expose().trim())
            .map_err(|_| refused("its value holds characters that no header can carry"))?;
        if value.is_empty() {
            return Err(refused("its value is empty"));
        }
        value.set_sensitive(true);
        Ok((parsed, value))
    };
    edge.iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_an_edge() {
        let check = |name: &str, value: &str, expected: Result<&str, &str>| {
            let found = headers(&[(name.to_owned(), Secret::new(value))]);
            let found = found.map(|list| list[0].1.to_str().expect("text").to_owned()).map_err(|e| e.to_string());
            match expected {
                Ok(value) => assert_eq!(found.as_deref(), Ok(value), "{name}"),
                Err(reason) => assert!(found.as_ref().is_err_and(|error| error.contains(reason)), "{name}: {found:?}"),
            }
        };
        check("CF-Access-Client-Id", "abc.access", Ok("abc.access"));
        check("cf-access-token", " token\n", Ok("token"));
        check("Authorization", "Bearer x", Ok("Bearer x"));
        check("Host", "evil", Err("sets this header itself"));
        check("x-openclaw-gateway-proof", "x", Err("sets this header itself"));
        check("bad name", "x", Err("not a header name"));
        check("X-A", "", Err("empty"));
        check("X-A", "s3cret\r\nX-B: c", Err("no header can carry"));
        let error = headers(&[("X-A".to_owned(), Secret::new("s3cret\r\nX-B: c"))]).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("s3cret"));
        let shown = format!("{:?}", headers(&[("X-A".to_owned(), Secret::new("s3cret"))]));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

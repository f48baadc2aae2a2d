//! `system.which {bins}`: where programs are, for those that are there.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Call, Failure, Toolbox};

/// Most names in one request.
const MAX_BINS: usize = 1000;

#[derive(Deserialize)]
struct Params {
    bins: Option<Vec<String>>,
}

pub fn run(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let bins = call.params::<Params>()?.bins.ok_or_else(|| Failure::invalid("INVALID_REQUEST: bins required"))?;
    if bins.len() > MAX_BINS {
        return Err(Failure::invalid(format!("INVALID_REQUEST: more than {MAX_BINS} bins")));
    }
    let mut found = Map::new();
    for bin in bins.iter().map(|bin| bin.trim()) {
        if let Some(path) = toolbox.find(bin) {
            found.insert(bin.to_owned(), json!(path.to_string_lossy()));
        }
    }
    Ok(json!({ "bins": found }))
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;

    /// `node-run-pair-invoke`: absent programs are left out.
    #[tokio::test]
    async fn found_and_not_found() {
        let bench = Bench::new("{}");
        let bins = json!({"bins": [" sh ", "no-such-program", "", "../bin/sh", "/bin/sh"]});
        assert_eq!(bench.ask("system.which", bins).await.unwrap(), json!({"bins": {"sh": "/usr/bin/sh"}}));
        assert!(bench.ask("system.which", json!({})).await.is_err());
        assert!(bench.ask("system.which", json!({"bins": "sh"})).await.is_err());
    }
}

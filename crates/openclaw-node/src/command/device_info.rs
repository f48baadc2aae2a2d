//! `device.info`: what this machine is. The shape is that of the phone nodes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::settings::machine_name;

pub fn info(env: &BTreeMap<String, String>) -> Value {
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let locale = ["LC_ALL", "LANG"].into_iter().find_map(|name| env.get(name)).filter(|value| !value.is_empty());
    json!({
        "deviceName": machine_name(),
        "modelIdentifier": model().unwrap_or_else(|| text(system.machine())),
        "systemName": text(system.sysname()),
        "systemVersion": release().unwrap_or_else(|| text(system.release())),
        "appVersion": env!("CARGO_PKG_VERSION"),
        "locale": locale.map_or("C", |locale| locale.split('.').next().unwrap_or(locale)),
    })
}

/// The name the manufacturer gave it, where the kernel tells.
fn model() -> Option<String> {
    let name = std::fs::read_to_string("/sys/class/dmi/id/product_name").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The distribution and its version.
fn release() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    #[tokio::test]
    async fn everything_is_told() {
        let bench = Bench::new("{}");
        let info = bench.toolbox.run(&bench.call("device.info", None)).await.unwrap();
        for key in ["deviceName", "modelIdentifier", "systemName", "systemVersion", "appVersion"] {
            assert!(info[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {info}");
        }
        assert_eq!(info["locale"], "C");
    }
}

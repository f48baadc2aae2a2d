//! The zone of a gateway for unicast DNS-SD: its records, the file they are written to, and their serial.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use openclaw_config::files::{self, FileError};

use super::plan::WideArea;

/// Seconds every record may be kept.
pub const TTL: u32 = 60;
pub const SERVICE: &str = "_openclaw-gw._tcp";
/// Refresh, retry, expire and negative time-to-live of the SOA record, seconds (release 2026.9.6).
pub const SOA: [u32; 4] = [7200, 3600, 1_209_600, 60];
const MAX_NAME_BYTES: usize = 253;
const MAX_ZONE_BYTES: u64 = 64 * 1024;

/// A domain name: labels of letters, digits and dashes. Safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            let bytes = label.as_bytes();
            let edge = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
            (1..=63).contains(&bytes.len())
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
                && edge(bytes.first())
                && edge(bytes.last())
        };
        let valid = !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.split('.').all(label);
        valid.then(|| Self(text.to_owned()))
    }

    /// Without the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a record says. Names are whole, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Soa { serial: u32 },
    Ns(String),
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ptr(String),
    Srv { port: u16, target: String },
    Txt(Vec<String>),
}

/// The records of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub domain: Domain,
    pub serial: u32,
    pub records: Vec<(String, Data)>,
}

impl Zone {
    pub fn of(wide: &WideArea, serial: u32) -> Self {
        let at = |label: &str| format!("{label}.{}", wide.domain);
        let (host, service) = (at(&wide.host), at(SERVICE));
        let instance = format!("{}.{service}", wide.instance);
        let origin = wide.domain.as_str().to_owned();
        let mut records = vec![
            (origin.clone(), Data::Soa { serial }),
            (origin, Data::Ns(at("ns1"))),
            (at("ns1"), Data::A(wide.v4)),
            (host.clone(), Data::A(wide.v4)),
        ];
        records.extend(wide.v6.map(|v6| (host.clone(), Data::Aaaa(v6))));
        records.push((service, Data::Ptr(instance.clone())));
        records.push((instance.clone(), Data::Srv { port: wide.port, target: host }));
        records.push((instance, Data::Txt(wide.txt.iter().map(|(key, value)| format!("{key}={value}")).collect())));
        Self { domain: wide.domain.clone(), serial, records }
    }
}

/// The zone in the form DNS servers read, with the reference's first line.
pub fn render(wide: &WideArea, serial: u32) -> String {
    let body = |serial: &str| {
        let mut lines = vec![
            format!("$ORIGIN {}.", wide.domain),
            format!("$TTL {TTL}"),
            format!("@ IN SOA ns1 hostmaster {serial} {}", SOA.map(|n| n.to_string()).join(" ")),
            "@ IN NS ns1".to_owned(),
            format!("ns1 IN A {}", wide.v4),
            format!("{} IN A {}", wide.host, wide.v4),
        ];
        lines.extend(wide.v6.map(|v6| format!("{} IN AAAA {v6}", wide.host)));
        let instance = format!("{}.{SERVICE}", wide.instance);
        lines.push(format!("{SERVICE} IN PTR {instance}"));
        lines.push(format!("{instance} IN SRV 0 0 {} {}", wide.port, wide.host));
        let txt: Vec<String> = wide.txt.iter().map(|(key, value)| quoted(&format!("{key}={value}"))).collect();
        lines.push(format!("{instance} IN TXT {}", txt.join(" ")));
        lines.join("\n") + "\n"
    };
    let hash = content_hash(&body("SERIAL"));
    format!("; openclaw-content-hash: {hash}\n{}", body(&serial.to_string()))
}

/// A string of a zone file. What is not plain ASCII is written as `\DDD`, as RFC 1035 has it: no value can end its line.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e => out.push(char::from(byte)),
            other => out.push_str(&format!("\\{other:03}")),
        }
    }
    out.push('"');
    out
}

/// FNV-1a over UTF-16 code units, as release 2026.9.6 computes it.
fn content_hash(text: &str) -> String {
    let hash =
        text.encode_utf16().fold(2_166_136_261_u32, |hash, unit| (hash ^ u32::from(unit)).wrapping_mul(16_777_619));
    format!("{hash:08x}")
}

/// Where the zone of a domain lies.
pub fn path(state_dir: &Path, domain: &Domain) -> PathBuf {
    state_dir.join("dns").join(format!("{domain}.db"))
}

/// Writes the zone when its content changed; its serial always grows. Returns the serial in force.
///
/// # Errors
/// When the file cannot be written.
pub fn write(state_dir: &Path, wide: &WideArea, today: u32) -> Result<(u32, bool), FileError> {
    let path = path(state_dir, &wide.domain);
    if let Some(directory) = path.parent() {
        files::create_private_dir(directory)?;
    }
    let present = files::read_private(&path, MAX_ZONE_BYTES)?.unwrap_or_default();
    let present = String::from_utf8_lossy(&present).into_owned();
    let serial = serial_of(&present);
    let fresh = render(wide, 0);
    if let Some(serial) = serial
        && present.lines().next() == fresh.lines().next()
    {
        return Ok((serial, false));
    }
    let serial = next_serial(serial, today);
    files::write_private_atomic(&path, render(wide, serial).as_bytes())?;
    // A DNS server of another user reads it; nothing in it is private. The directory above stays closed until its owner
    // opens it.
    let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o644));
    Ok((serial, true))
}

fn serial_of(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.starts_with("@ IN SOA "))?;
    line.split_whitespace().nth(5)?.parse().ok()
}

/// `today` is `YYYYMMDD01`. Serials are compared as RFC 1982 does.
fn next_serial(present: Option<u32>, today: u32) -> u32 {
    match present {
        None => today,
        Some(present) => {
            let ahead = today.wrapping_sub(present);
            if ahead > 0 && ahead < 1 << 31 { today } else { present.wrapping_add(1) }
        }
    }
}

/// The records of one name and type, and whether the name exists at all.
pub fn find<'a>(zone: &'a Zone, name: &str) -> (Vec<&'a Data>, bool) {
    let name = name.trim_end_matches('.');
    let same: Vec<&Data> =
        zone.records.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, data)| data).collect();
    // A name above another exists, too, and has nothing of its own.
    let below = format!(".{}", name.to_ascii_lowercase());
    let exists = !same.is_empty() || zone.records.iter().any(|(known, _)| known.to_ascii_lowercase().ends_with(&below));
    (same, exists)
}

/// True for addresses from within the tailnet.
pub fn may_ask(source: IpAddr) -> bool {
    match source.to_canonical() {
        IpAddr::V6(v6) => super::plan::is_tailnet_v6(&v6),
        v4 => crate::bind::is_tailnet(v4),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn wide() -> WideArea {
        WideArea {
            domain: Domain::parse("openclaw.internal.").unwrap(),
            host: "box".into(),
            instance: "box-gateway".into(),
            port: 18789,
            v4: "100.64.0.10".parse().unwrap(),
            v6: None,
            txt: vec![("displayName", "box (OpenClaw)".into()), ("role", "gateway".into())],
            serve: None,
        }
    }

    /// Made by `renderWideAreaGatewayZoneText` of release 2026.9.6 (hostname `box`, serial 2026112101); its TXT starts with
    /// the display name.
    #[test]
    fn zones_are_the_references() {
        let mut wide = wide();
        wide.txt = [
            ("displayName", "box (OpenClaw)"),
            ("role", "gateway"),
            ("transport", "gateway"),
            ("gatewayPort", "18789"),
        ]
        .map(|(key, value)| (key, value.to_owned()))
        .into();
        let expected = include_str!("reference-zone.db");
        assert_eq!(render(&wide, 2_026_112_101), expected);
    }

    #[test]
    fn p_89_no_value_leaves_its_string() {
        let mut wide = wide();
        wide.txt = vec![("displayName", "a\"b\\c\nevil IN A 1.2.3.4\u{e9}".into())];
        let text = render(&wide, 1);
        let line = text.lines().last().unwrap();
        assert_eq!(
            line,
            "box-gateway._openclaw-gw._tcp IN TXT \"displayName=a\\\"b\\\\c\\010evil IN A 1.2.3.4\\195\\169\""
        );
    }

    #[test]
    fn domains() {
        for (text, expected) in [
            ("openclaw.internal", Some("openclaw.internal")),
            (" openclaw.internal. ", Some("openclaw.internal")),
            ("a", Some("a")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("../../etc", None),
            ("a b", None),
            ("-a.b", None),
            ("a.b/c", None),
        ] {
            assert_eq!(Domain::parse(text).as_ref().map(Domain::as_str), expected, "{text}");
        }
        assert!(Domain::parse(&format!("{}.x", "a".repeat(64))).is_none());
    }

    #[test]
    fn a_zone_is_written_when_it_changed_and_its_serial_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut wide = wide();
        assert_eq!(write(dir.path(), &wide, 2_026_112_101).unwrap(), (2_026_112_101, true));
        assert_eq!(write(dir.path(), &wide, 2_026_112_201).unwrap(), (2_026_112_101, false));
        wide.port = 1;
        assert_eq!(write(dir.path(), &wide, 2_026_112_101).unwrap(), (2_026_112_102, true));
        wide.port = 2;
        assert_eq!(write(dir.path(), &wide, 2_026_112_201).unwrap(), (2_026_112_201, true));
        // A clock that went back does not take the serial with it.
        wide.port = 3;
        assert_eq!(write(dir.path(), &wide, 2_020_010_101).unwrap(), (2_026_112_202, true));
        let file = path(dir.path(), &wide.domain);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

//! Which commands of a node may run. Pure: what the node declared, what the owner approved and what the configuration
//! says go in, a verdict comes out. It is asked for every call, so nothing outlives a change of any of the three.
//!
//! Tables are those of release 2026.9.6 (pairing and node notes, section 7).

use openclaw_protocol::{ErrorShape, Scope};
use serde_json::json;

use super::surface::Surface;

const IOS: &[&str] = &[
    "camera.list",
    "location.get",
    "device.info",
    "device.status",
    "contacts.search",
    "calendar.events",
    "reminders.list",
    "photos.latest",
    "motion.activity",
    "motion.pedometer",
    "system.notify",
];
const IPHONE: &[&str] = &["watch.status", "watch.notify"];
const WATCHOS: &[&str] = &["device.info", "device.status", "system.notify"];
const ANDROID: &[&str] = &[
    "camera.list",
    "location.get",
    "notifications.list",
    "notifications.actions",
    "system.notify",
    "device.info",
    "device.status",
    "device.permissions",
    "device.health",
    "device.apps",
    "contacts.search",
    "calendar.events",
    "callLog.search",
    "reminders.list",
    "photos.latest",
    "motion.activity",
    "motion.pedometer",
    "mobile.ui.observe",
    "mobile.ui.act",
];
const MACOS: &[&str] = &[
    "camera.list",
    "camera.ptz.status",
    "location.get",
    "device.info",
    "device.status",
    "device.apps",
    "contacts.search",
    "calendar.events",
    "reminders.list",
    "photos.latest",
    "motion.activity",
    "motion.pedometer",
    "system.notify",
    "computer.act",
    // Defaults of the bundled canvas plugin.
    "canvas.present",
    "canvas.hide",
    "canvas.navigate",
];
const WINDOWS: &[&str] =
    &["camera.list", "location.get", "device.info", "device.status", "system.notify", "computer.act"];
const LINUX: &[&str] = &[
    "system.notify",
    "computer.act",
    // Defaults of the bundled linux-node plugin.
    "camera.list",
    "location.get",
];
const UNKNOWN: &[&str] = &["camera.list", "location.get", "system.notify"];

/// What a node host on a desktop offers. The owner's approval of the surface is what allows them.
const DESKTOP_HOST: &[&str] = &[
    "system.run",
    "system.run.prepare",
    "system.which",
    "system.execApprovals.get",
    "system.execApprovals.set",
    "browser.proxy",
    "browser.proxy.upload.v1",
    "fs.listDir",
    "terminal.upload",
    "mcp.tools.call.v1",
    "screen.snapshot",
    "desktop.stream",
    "agent.cli.claude.run.v1",
    // Defaults of the bundled local inference plugin; seen in the effective list of a real node host.
    "ollama.chat",
    "ollama.models",
];
/// Allowed on every platform for a node that talks.
const PUSH_TO_TALK: &[&str] = &["talk.ptt.start", "talk.ptt.stop", "talk.ptt.cancel", "talk.ptt.once"];
/// Never allowed without an entry in `gateway.nodes.commands.allow`.
const DANGEROUS: &[&str] = &[
    "camera.snap",
    "camera.clip",
    "camera.ptz.control",
    "screen.record",
    "contacts.add",
    "calendar.add",
    "reminders.add",
    "health.summary",
    "sms.send",
    "sms.search",
];
/// `node.invoke` of these needs `operator.admin`.
const ADMIN_TO_INVOKE: &[&str] = &["browser.proxy", "browser.proxy.upload.v1", "fs.listDir", "terminal.upload"];
/// Approving a surface with one of these needs `operator.admin`.
const ADMIN_TO_APPROVE: &[&str] = &[
    "system.run",
    "system.run.prepare",
    "system.which",
    "browser.proxy",
    "browser.proxy.upload.v1",
    "fs.listDir",
    "system.execApprovals.get",
    "system.execApprovals.set",
];

/// The scopes an operator needs to approve a surface, besides being one.
pub fn scopes_to_approve(surface: &Surface) -> Vec<Scope> {
    let mut scopes = vec![Scope::Pairing];
    if surface.commands.iter().any(|command| ADMIN_TO_APPROVE.contains(&command.as_str())) {
        scopes.push(Scope::Admin);
    } else if !surface.commands.is_empty() {
        scopes.push(Scope::Write);
    }
    scopes
}

/// The scope an operator needs to invoke a command.
pub fn scope_to_invoke(command: &str) -> Scope {
    if ADMIN_TO_INVOKE.contains(&command) { Scope::Admin } else { Scope::Write }
}

/// What kind of machine a node is, as far as the tables care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    Ios { iphone: bool },
    WatchOs,
    Android,
    MacOs,
    Windows,
    Linux,
    Unknown,
}

impl Platform {
    /// From `client.platform` and `client.deviceFamily`: an exact id, or a native label such as `iOS 18.4` together
    /// with a matching family. When the two disagree the platform is unknown.
    pub fn of(platform: &str, family: Option<&str>) -> Self {
        let platform = platform.trim().to_ascii_lowercase();
        let family = family.map(|family| family.trim().to_ascii_lowercase()).filter(|family| !family.is_empty());
        let (name, native) = match platform.split_once([' ', '-']) {
            Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => (name, true),
            _ => (platform.as_str(), false),
        };
        let named = match name {
            "ios" | "ipados" => Self::Ios { iphone: false },
            "watchos" => Self::WatchOs,
            "android" => Self::Android,
            "macos" | "darwin" => Self::MacOs,
            "windows" | "win32" => Self::Windows,
            "linux" => Self::Linux,
            _ => return Self::Unknown,
        };
        match family.as_deref().map(Self::of_family) {
            None if native => Self::Unknown,
            None => named,
            Some(Self::Ios { iphone }) if matches!(named, Self::Ios { .. }) => Self::Ios { iphone },
            Some(family) if family == named => named,
            Some(_) => Self::Unknown,
        }
    }

    fn of_family(family: &str) -> Self {
        match family {
            "iphone" => Self::Ios { iphone: true },
            "ipad" | "ipod" | "ios" | "ipados" => Self::Ios { iphone: false },
            "watch" | "apple watch" | "watchos" => Self::WatchOs,
            "android" => Self::Android,
            "mac" | "macos" | "darwin" => Self::MacOs,
            "windows" => Self::Windows,
            "linux" => Self::Linux,
            _ => Self::Unknown,
        }
    }

    /// The id in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ios { .. } => "ios",
            Self::WatchOs => "watchos",
            Self::Android => "android",
            Self::MacOs => "macos",
            Self::Windows => "windows",
            Self::Linux => "linux",
            Self::Unknown => "unknown",
        }
    }

    const fn defaults(self) -> &'static [&'static str] {
        match self {
            Self::Ios { .. } => IOS,
            Self::WatchOs => WATCHOS,
            Self::Android => ANDROID,
            Self::MacOs => MACOS,
            Self::Windows => WINDOWS,
            Self::Linux => LINUX,
            Self::Unknown => UNKNOWN,
        }
    }

    const fn is_desktop(self) -> bool {
        matches!(self, Self::MacOs | Self::Windows | Self::Linux)
    }

    /// Platforms whose apps have the dangerous commands. A release gateway withheld `camera.snap` from a Linux node.
    const fn has_dangerous(self) -> bool {
        matches!(self, Self::Ios { .. } | Self::Android | Self::MacOs | Self::Windows)
    }
}

/// `gateway.nodes.commands`: exact command names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lists<'a> {
    pub allow: &'a [String],
    pub deny: &'a [String],
}

impl Lists<'_> {
    fn allows(&self, command: &str) -> bool {
        self.allow.iter().any(|entry| entry.trim() == command)
    }

    fn denies(&self, command: &str) -> bool {
        self.deny.iter().any(|entry| entry.trim() == command)
    }
}

/// Why a command may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Not in the tables of the platform, or denied by the configuration.
    NotAllowed(Platform),
    /// Needs an entry in `gateway.nodes.commands.allow`.
    Dangerous,
    NothingDeclared,
    NotDeclared(Platform),
    /// Declared by the node, and not yet approved by the owner.
    NotApproved,
}

impl Denial {
    /// `INVALID_REQUEST` with the words of the reference.
    pub fn into_error(self, command: &str) -> ErrorShape {
        let (reason, why) = match self {
            Self::NotAllowed(platform) => (
                "command not allowlisted",
                format!("\"{command}\" is not in the allowlist for platform \"{}\"", platform.as_str()),
            ),
            Self::Dangerous => (
                "command not allowlisted",
                format!("\"{command}\" requires explicit gateway.nodes.commands.allow opt-in"),
            ),
            Self::NothingDeclared => {
                ("node did not declare commands", "the node did not declare any supported commands".to_owned())
            }
            Self::NotDeclared(platform) => (
                "command not declared by node",
                format!("the node (platform: {}) does not support \"{command}\"", platform.as_str()),
            ),
            Self::NotApproved => (
                "command not approved",
                format!("\"{command}\" awaits operator approval; see `openclaw nodes pending`"),
            ),
        };
        ErrorShape::invalid(format!("node command not allowed: {why}"))
            .with_details(json!({"reason": reason, "command": command}))
    }
}

/// May `command` run? `approved` is the surface the owner approved.
///
/// # Errors
/// The first reason in the order of the reference: the allowlist, then the declaration; approval last.
pub fn check(
    platform: Platform,
    declared: &Surface,
    approved: &Surface,
    lists: Lists<'_>,
    command: &str,
) -> Result<(), Denial> {
    if !allowlisted(platform, declared, lists, command) {
        let dangerous = DANGEROUS.contains(&command) && !lists.denies(command);
        return Err(if dangerous { Denial::Dangerous } else { Denial::NotAllowed(platform) });
    }
    if declared.commands.is_empty() {
        return Err(Denial::NothingDeclared);
    }
    if !declared.has_command(command) {
        return Err(Denial::NotDeclared(platform));
    }
    if !approved.has_command(command) {
        return Err(Denial::NotApproved);
    }
    Ok(())
}

/// The part of a declaration that the owner is asked about. The rest is withheld: no approval could make it run.
/// Dangerous commands are asked about as well, so that an entry in the configuration arms them without asking again.
pub fn declarable(platform: Platform, declared: &Surface, lists: Lists<'_>) -> Surface {
    let may = |command: &String| {
        let dangerous = platform.has_dangerous() && DANGEROUS.contains(&command.as_str()) && !lists.denies(command);
        dangerous || allowlisted(platform, declared, lists, command)
    };
    Surface { commands: declared.commands.iter().filter(|command| may(command)).cloned().collect(), ..declared.clone() }
}

/// What a node may do now: declared, approved and allowed.
pub fn effective(platform: Platform, declared: &Surface, approved: &Surface, lists: Lists<'_>) -> Surface {
    let runs = |command: &&String| check(platform, declared, approved, lists, command).is_ok();
    Surface {
        caps: declared.caps.iter().filter(|cap| approved.caps.contains(cap)).cloned().collect(),
        commands: declared.commands.iter().filter(runs).cloned().collect(),
        permissions: declared
            .permissions
            .iter()
            .map(|(name, granted)| (name.clone(), *granted && approved.permissions.get(name) == Some(&true)))
            .collect(),
    }
}

fn allowlisted(platform: Platform, declared: &Surface, lists: Lists<'_>, command: &str) -> bool {
    let talks = || {
        declared.caps.iter().any(|cap| cap == "talk") || declared.commands.iter().any(|name| name.starts_with("talk."))
    };
    let by_default = platform.defaults().contains(&command)
        || (platform.is_desktop() && DESKTOP_HOST.contains(&command))
        || (platform == Platform::Ios { iphone: true } && IPHONE.contains(&command))
        || (PUSH_TO_TALK.contains(&command) && talks());
    (by_default || lists.allows(command)) && !lists.denies(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(commands: &[&str]) -> Surface {
        Surface { commands: commands.iter().map(|&c| c.to_owned()).collect(), ..Surface::default() }
    }

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn platforms() {
        let check = |platform, family, expected| assert_eq!(Platform::of(platform, family), expected, "{platform}");
        check("linux", None, Platform::Linux);
        check("linux", Some("Linux"), Platform::Linux);
        check("linux", Some("Mac"), Platform::Unknown);
        check("macos", Some("Mac"), Platform::MacOs);
        check("darwin", None, Platform::MacOs);
        check("win32", Some("Windows"), Platform::Windows);
        check("iOS 18.4", Some("iPhone"), Platform::Ios { iphone: true });
        check("iOS 18.4", Some("iPad"), Platform::Ios { iphone: false });
        check("iOS 18.4", None, Platform::Unknown);
        check("iOS 18.4", Some("Android"), Platform::Unknown);
        check("watchOS 11.1", Some("Apple Watch"), Platform::WatchOs);
        check("ios", None, Platform::Ios { iphone: false });
        check("Android 15", Some("Android"), Platform::Android);
        check("linux; rm", None, Platform::Unknown);
        check("plan9", Some("Linux"), Platform::Unknown);
        check("", None, Platform::Unknown);
    }

    /// A verdict on a node that declared and was approved for the same commands.
    fn verdict(platform: Platform, commands: &[&str], lists: (&[&str], &[&str]), command: &str) -> Result<(), Denial> {
        let (allow, deny) = (owned(lists.0), owned(lists.1));
        let surface = surface(commands);
        check(platform, &surface, &surface, Lists { allow: &allow, deny: &deny }, command)
    }

    #[test]
    fn verdicts() {
        use Denial::*;
        use Platform::*;
        /// `allow`, `deny`
        type Lists = (&'static [&'static str], &'static [&'static str]);
        const NONE: Lists = (&[], &[]);
        let phone = Ios { iphone: true };
        type Row = (Platform, &'static [&'static str], Lists, &'static str, Result<(), Denial>);
        let rows: &[Row] = &[
            (Linux, &["system.which"], NONE, "system.which", Ok(())),
            (Linux, &["system.run"], NONE, "system.which", Err(NotDeclared(Linux))),
            (Linux, &[], NONE, "system.which", Err(NothingDeclared)),
            (Linux, &["acme.do"], NONE, "acme.do", Err(NotAllowed(Linux))),
            (Linux, &["acme.do"], (&["acme.do"], &[]), "acme.do", Ok(())),
            (Linux, &["acme.do"], (&[" acme.do "], &[]), "acme.do", Ok(())),
            (Linux, &["acme.do"], (&["acme.*"], &[]), "acme.do", Err(NotAllowed(Linux))),
            (Linux, &["camera.snap"], NONE, "camera.snap", Err(Dangerous)),
            (MacOs, &["camera.snap"], NONE, "camera.snap", Err(Dangerous)),
            (MacOs, &["camera.snap"], (&["camera.snap"], &[]), "camera.snap", Ok(())),
            (MacOs, &["camera.snap"], (&["camera.snap"], &["camera.snap"]), "camera.snap", Err(NotAllowed(MacOs))),
            (MacOs, &["device.info"], (&[], &["device.info"]), "device.info", Err(NotAllowed(MacOs))),
            (Linux, &["system.run"], (&["system.run"], &["system.run"]), "system.run", Err(NotAllowed(Linux))),
            (Unknown, &["system.run"], NONE, "system.run", Err(NotAllowed(Unknown))),
            (Unknown, &["system.run"], (&["system.run"], &[]), "system.run", Ok(())),
            (phone, &["system.run"], NONE, "system.run", Err(NotAllowed(phone))),
            (phone, &["watch.status"], NONE, "watch.status", Ok(())),
            (Ios { iphone: false }, &["watch.status"], NONE, "watch.status", Err(NotAllowed(Ios { iphone: false }))),
            (Unknown, &["talk.ptt.start"], NONE, "talk.ptt.start", Ok(())),
            (Unknown, &["x"], NONE, "talk.ptt.start", Err(NotAllowed(Unknown))),
            (Android, &["sms.send"], NONE, "sms.send", Err(Dangerous)),
            (WatchOs, &["device.info"], NONE, "device.info", Ok(())),
            (WatchOs, &["location.get"], NONE, "location.get", Err(NotAllowed(WatchOs))),
        ];
        for (platform, commands, lists, command, expected) in rows {
            assert_eq!(verdict(*platform, commands, *lists, command), *expected, "{platform:?} {commands:?} {command}");
        }
    }

    #[test]
    fn p_60_effective_is_approved_and_declared() {
        let declared = surface(&["system.run", "system.which", "acme.do"]);
        let approved = surface(&["system.which", "browser.proxy"]);
        let lists = Lists::default();
        assert_eq!(effective(Platform::Linux, &declared, &approved, lists).commands, ["system.which"]);
        let refused = check(Platform::Linux, &declared, &approved, lists, "system.run");
        assert_eq!(refused, Err(Denial::NotApproved));
        assert!(effective(Platform::Linux, &declared, &Surface::default(), lists).commands.is_empty());
    }

    /// `node-run-pair-invoke`: what 2026.9.6 declares on Linux, and what its gateway asked the owner about.
    #[test]
    fn a_real_declaration() {
        let declared = surface(&[
            "browser.proxy",
            "browser.proxy.upload.v1",
            "desktop.stream",
            "dir.fetch",
            "dir.list",
            "file.create",
            "file.fetch",
            "file.stat",
            "file.write",
            "fs.listDir",
            "mcp.tools.call.v1",
            "ollama.chat",
            "ollama.models",
            "system.execApprovals.get",
            "system.execApprovals.set",
            "system.run",
            "system.run.prepare",
            "system.which",
            "terminal.upload",
            "workspace.memory",
            "workspace.skills",
        ]);
        let asked = declarable(Platform::Linux, &declared, Lists::default());
        assert_eq!(
            asked.commands,
            [
                "browser.proxy",
                "browser.proxy.upload.v1",
                "desktop.stream",
                "fs.listDir",
                "mcp.tools.call.v1",
                "ollama.chat",
                "ollama.models",
                "system.execApprovals.get",
                "system.execApprovals.set",
                "system.run",
                "system.run.prepare",
                "system.which",
                "terminal.upload",
            ]
        );
        assert_eq!(scopes_to_approve(&asked), [Scope::Pairing, Scope::Admin]);
    }

    /// `pairing-node-events`: `camera.snap` and `acme.do` of a Linux node are withheld.
    #[test]
    fn what_is_withheld() {
        let withheld =
            |platform, commands: &[&str]| declarable(platform, &surface(commands), Lists::default()).commands;
        assert_eq!(withheld(Platform::Linux, &["system.run", "camera.snap", "acme.do"]), ["system.run"]);
        // The reference's table for Linux, with the defaults of its bundled plugin; no device.info.
        let desktop = ["system.notify", "camera.list", "location.get", "device.info", "device.status"];
        assert_eq!(withheld(Platform::Linux, &desktop), ["system.notify", "camera.list", "location.get"]);
        assert_eq!(withheld(Platform::MacOs, &["camera.snap", "device.info"]), ["camera.snap", "device.info"]);
    }

    #[test]
    fn scopes() {
        let check = |commands: &[&str], expected: &[Scope]| {
            assert_eq!(scopes_to_approve(&surface(commands)), expected, "{commands:?}");
        };
        check(&[], &[Scope::Pairing]);
        check(&["device.info"], &[Scope::Pairing, Scope::Write]);
        check(&["device.info", "system.which"], &[Scope::Pairing, Scope::Admin]);
        for command in ["browser.proxy", "browser.proxy.upload.v1", "fs.listDir", "terminal.upload"] {
            assert_eq!(scope_to_invoke(command), Scope::Admin);
        }
        assert_eq!(scope_to_invoke("system.run"), Scope::Write);
    }

    /// The texts of release 2026.9.6 (`pairing-node-events`).
    #[test]
    fn words() {
        let error = Denial::NotAllowed(Platform::Linux).into_error("acme.do");
        assert_eq!(
            serde_json::to_value(error).expect("serialises"),
            json!({"code": "INVALID_REQUEST",
                   "message": "node command not allowed: \"acme.do\" is not in the allowlist for platform \"linux\"",
                   "details": {"reason": "command not allowlisted", "command": "acme.do"}})
        );
        let error = Denial::Dangerous.into_error("camera.snap");
        let words = "\"camera.snap\" requires explicit gateway.nodes.commands.allow opt-in";
        assert_eq!(error.message, format!("node command not allowed: {words}"));
        assert_eq!(error.details, Some(json!({"reason": "command not allowlisted", "command": "camera.snap"})));
    }
}

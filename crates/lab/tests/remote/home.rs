//! A gateway at home and a laptop anywhere: the scene of these tests.
//!
//! ```text
//!   laptop ── lan ── gateway (sshd on port 22, our gateway on 18789)
//!     │  └─── ts ───┘   │
//!     │                 lan
//!     ├── pub ───────── proxy (sshd: the jump host)
//!     └── cafe ── NAT ── pub
//! ```

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use lab::{
    netlab::{GATEWAY_PORT, Host, LabGateway, Netlab},
    process::{Finished, GatewayOptions, Launch, wait_at_most},
    sandbox::binary,
    sshd::{SshClient, Sshd, SshdSetup, user},
};
use serde_json::{Value, json};

/// Everything that runs.
pub struct Home<'lab> {
    pub lab: &'lab Netlab,
    pub gateway: LabGateway<'lab>,
    /// On the gateway's host; a session there is the owner's.
    pub far: Sshd,
    /// On the host `proxy`.
    pub jump: Sshd,
    /// The laptop's ssh: `box` over the LAN, `box-ts` over the tailnet, `box-jump` through `proxy`.
    pub me: SshClient,
}

impl<'lab> Home<'lab> {
    #[track_caller]
    pub fn new(lab: &'lab Netlab) -> Self {
        Self::with(lab, GatewayOptions::default())
    }

    #[track_caller]
    pub fn with(lab: &'lab Netlab, options: GatewayOptions) -> Self {
        let gateway = lab.gateway(options);
        let host = gateway.host();
        let far = SshdSetup::on(host).with_openclaw(&binary(), &host.home(), &host.state_dir()).start();
        let jump = SshdSetup::on(lab.host("proxy")).start();
        let me = SshClient::on(lab.laptop());
        far.authorize(&me.public_key());
        jump.authorize(&me.public_key());
        me.trust(&far, &["gateway.home", "gateway.tail-lab.ts.net", "192.168.77.10", "100.64.0.10"]);
        me.trust(&jump, &["proxy.example.net", "203.0.113.40"]);
        me.alias("jump", "proxy.example.net", 22, &[]);
        me.alias("box", "gateway.home", 22, &[]);
        me.alias("box-ts", "gateway.tail-lab.ts.net", 22, &[]);
        me.alias("box-jump", "gateway.home", 22, &["ProxyJump jump"]);
        Self { lab, gateway, far, jump, me }
    }

    pub fn laptop(&self) -> Host<'lab> {
        self.lab.laptop()
    }

    /// Our program on the laptop, which has this person's ssh.
    pub fn openclaw(&self, args: &[&str]) -> Launch {
        let args = args.iter().copied();
        self.me.env().into_iter().fold(self.laptop().openclaw(args), |launch, (name, value)| launch.env(name, value))
    }

    /// Runs it to its end; it has to succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Finished {
        let done = self.openclaw(args).run();
        assert!(done.status.success(), "openclaw {args:?}: {done:#?}\n{}", self.gateway.said());
        done
    }

    /// Runs it to its end; it has to fail.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> Finished {
        let done = self.openclaw(args).run();
        assert!(!done.status.success(), "openclaw {args:?} succeeded: {done:#?}");
        done
    }

    /// A path as the file of connections has it.
    pub fn direct(&self, network: &str) -> Value {
        let kind = if network == "ts" { "tailnet" } else { "lan" };
        json!({"kind": kind, "url": self.gateway.url(network), "tlsFingerprint": null})
    }

    /// The path by one of the laptop's ssh aliases.
    pub fn ssh(&self, alias: &str) -> Value {
        json!({"kind": "ssh", "target": format!("{}@{alias}", user()), "identity": null, "hostKeyPolicy": "strict",
               "gatewayPort": GATEWAY_PORT})
    }

    /// Saves a connection on the laptop, with the identity the gateway has.
    #[track_caller]
    pub fn save(&self, name: &str, paths: &[Value]) {
        let file = self.laptop().state_dir().join("connections.json");
        let text = fs::read_to_string(&file).unwrap_or_else(|_| json!({"version": 1, "connections": {}}).to_string());
        let mut all: Value = serde_json::from_str(&text).expect("our own file");
        all["connections"][name] =
            json!({"gatewayId": self.gateway_id(), "paths": paths, "createdAtMs": 1_700_000_000_000_u64});
        fs::write(&file, all.to_string()).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("sets the mode");
    }

    /// Who the gateway proves to be.
    #[track_caller]
    pub fn gateway_id(&self) -> String {
        let file = self.gateway.host().state_dir().join("identity/device.json");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let identity: Value = serde_json::from_str(&text).expect("JSON");
        identity["deviceId"].as_str().expect("an id").to_owned()
    }

    /// Pairs the laptop over the LAN: it asks with the shared token, the owner approves, and from then on its own device
    /// token is enough on every path of a saved connection.
    #[track_caller]
    pub fn pair(&self) {
        self.save("pairing", &[self.direct("lan")]);
        let ask = [
            "--on",
            "pairing",
            "gateway",
            "call",
            "system-event",
            "--params",
            r#"{"text":"paired"}"#,
            "--token",
            self.gateway.token(),
        ];
        // First it may read, then it may everything: each is approved by its own.
        for _ in 0..2 {
            let refused = self.fails(&ask);
            let pending = self.gateway.owner(["devices", "list", "--json"]).run().json();
            let request = pending["pending"][0]["requestId"].as_str();
            let request = request.unwrap_or_else(|| panic!("{pending}\n{refused:#?}"));
            let approved = self.gateway.owner(["devices", "approve", request]).run();
            assert!(approved.status.success(), "{approved:#?}");
        }
        self.ok(&ask);
        self.ok(&["--on", "pairing", "health"]);
    }

    /// No ssh of the laptop outlives the command that started it, helpers for a jump host included.
    #[track_caller]
    pub fn no_ssh_left(&self) {
        wait_at_most(Duration::from_secs(3), "end of every ssh", || self.me.running().is_empty().then_some(()));
    }
}

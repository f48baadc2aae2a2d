//! The closed choices of the section, each with its config word.

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in config, flags and environment.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads the word exactly.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|choice| choice.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// Whether this machine runs the gateway or is a client of another.
    Mode { Local = "local", Remote = "remote" }
}

choice! {
    /// Where the gateway listens (checklist S-098…S-103).
    BindMode {
        /// 127.0.0.1
        Loopback = "loopback",
        /// 0.0.0.0
        Lan = "lan",
        /// This host's 100.64.0.0/10 address.
        Tailnet = "tailnet",
        /// `gateway.customBindHost`
        Custom = "custom",
        /// Loopback, else tailnet, else lan.
        Auto = "auto",
    }
}

impl BindMode {
    /// True when strangers can reach the listener, so that auth is required. `Auto` is judged once it is resolved.
    pub const fn leaves_loopback(self) -> bool {
        matches!(self, Self::Lan | Self::Tailnet | Self::Custom)
    }
}

choice! {
    /// How a connection proves itself.
    AuthMode { None = "none", Token = "token", Password = "password", TrustedProxy = "trusted-proxy" }
}

choice! {
    /// Tailscale in front of the gateway.
    #[derive(Default)]
    TailscaleMode { #[default] Off = "off", Serve = "serve", Funnel = "funnel" }
}

choice! {
    /// How bytes reach the remote gateway.
    #[derive(Default)]
    Transport { /// As when unset (checklist S-062).
        #[default] Ssh = "ssh", Direct = "direct" }
}

choice! {
    /// How unknown SSH host keys are treated.
    #[derive(Default)]
    HostKeyPolicy { #[default] Strict = "strict", Openssh = "openssh" }
}

choice! {
    /// How config changes reach a running gateway.
    #[derive(Default)]
    ReloadMode { Off = "off", Restart = "restart", Hot = "hot", #[default] Hybrid = "hybrid" }
}

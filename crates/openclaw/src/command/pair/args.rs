//! What is typed after `openclaw qr` and `openclaw pair`.

use clap::Args;

use crate::args::TargetArgs;

#[derive(Args, Debug)]
#[command(
    after_help = "openclaw pair                     draws a code, waits for the phone and tells how far it got\n\
    openclaw qr --setup-code-only     prints the code for a script\n\
    openclaw pair --url wss://gw.example.com"
)]
pub struct PairArgs {
    /// The new device may do everything but pair others; only over wss:// or on this machine
    #[arg(long, conflicts_with_all = ["limited", "voice_node"])]
    pub admin: bool,
    /// No administration (the default)
    #[arg(long, conflicts_with = "voice_node")]
    pub limited: bool,
    /// A device that hears and speaks, and reads
    #[arg(long)]
    pub voice_node: bool,
    /// Address to put into the code instead of the gateway's own
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The same
    #[arg(long, value_name = "URL", conflicts_with = "url")]
    pub public_url: Option<String>,
    /// Put gateway.remote.url into the code
    #[arg(long, conflicts_with_all = ["url", "public_url"])]
    pub remote: bool,
    /// Gateway token to log in with
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Gateway password to log in with
    #[arg(long, value_name = "PASSWORD", conflicts_with = "token")]
    pub password: Option<String>,
    /// Print only the setup code
    #[arg(long)]
    pub setup_code_only: bool,
    /// No picture, only the text
    #[arg(long)]
    pub no_ascii: bool,
    /// Swap dark and light, for a terminal without colours that has a light ground, or a reader that wants it so
    #[arg(long)]
    pub invert: bool,
    /// Do not wait for the device
    #[arg(long)]
    pub no_wait: bool,
    /// Put the addresses in without trying them first
    #[arg(long)]
    pub untested: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Time limit of each call in milliseconds
    #[arg(long, value_name = "MS", value_parser = crate::args::milliseconds)]
    pub timeout: Option<u64>,
}

impl PairArgs {
    /// Where to ask for the code: this machine's gateway, or the one that is saved or named by `--on`.
    pub fn at(&self) -> TargetArgs {
        TargetArgs {
            url: None,
            token: self.token.clone(),
            password: self.password.clone(),
            timeout: self.timeout,
            json: self.json,
        }
    }

    /// The reference's name of the rights; `None` asks for all that may be handed out.
    pub const fn profile(&self) -> Option<&'static str> {
        match (self.admin, self.voice_node) {
            (true, _) => None,
            (false, true) => Some("voice-node"),
            (false, false) => Some("limited"),
        }
    }

    pub fn address(&self) -> Option<&str> {
        self.url.as_deref().or(self.public_url.as_deref()).map(str::trim).filter(|url| !url.is_empty())
    }
}

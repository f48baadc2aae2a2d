//! What is typed after `openclaw nodes`.

use clap::{Args, Subcommand, ValueEnum};

use crate::args::TargetArgs;

#[derive(Args, Debug)]
pub struct Nodes {
    #[command(subcommand)]
    pub command: NodesCommand,
}

#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// Known nodes, whether they are connected, and what they do
    Status(Listing),
    /// Pending and paired nodes
    List(Listing),
    /// What waits for approval
    Pending(TargetArgs),
    /// Approve what a node offers
    Approve(Request),
    /// Reject it
    Reject(Request),
    /// Take the node role from a device
    Remove(OneNode),
    /// Give a node another name
    Rename(Rename),
    /// Everything known of a node
    Describe(OneNode),
    /// Invoke a command on a node
    Invoke(Invoke),
    /// Run a program on a node
    Run(Run),
    /// Show a notification on a node
    Notify(Notify),
    /// Photos and films of a node's cameras
    Camera(Camera),
    /// What a node's screen shows
    Screen(Screen),
    /// Where a node is
    Location(Location),
    /// The widget panel of the app for macOS
    Canvas(Canvas),
}

impl Nodes {
    /// Whether a failure has to be told on stdout as JSON, too.
    pub fn wants_json(&self) -> bool {
        match &self.command {
            NodesCommand::Status(args) | NodesCommand::List(args) => args.at.json,
            NodesCommand::Pending(at) => at.json,
            NodesCommand::Approve(args) | NodesCommand::Reject(args) => args.at.json,
            NodesCommand::Remove(args) | NodesCommand::Describe(args) => args.at.json,
            NodesCommand::Rename(args) => args.node.at.json,
            NodesCommand::Invoke(args) => args.node.at.json,
            NodesCommand::Run(args) => args.node.at.json,
            NodesCommand::Notify(args) => args.node.at.json,
            NodesCommand::Camera(args) => match &args.command {
                CameraCommand::List(args) => args.at.json,
                CameraCommand::Snap(args) => args.node.at.json,
                CameraCommand::Clip(args) => args.node.at.json,
            },
            NodesCommand::Screen(args) => match &args.command {
                ScreenCommand::Record(args) => args.node.at.json,
                ScreenCommand::Snapshot(args) => args.node.at.json,
            },
            NodesCommand::Location(Location { command: LocationCommand::Get(args) }) => args.node.at.json,
            NodesCommand::Canvas(args) => match &args.command {
                CanvasCommand::Present(args) => args.node.at.json,
                CanvasCommand::Hide(args) => args.node.at.json,
                CanvasCommand::Navigate(args) => args.node.at.json,
            },
        }
    }
}

#[derive(Args, Debug)]
pub struct Listing {
    /// Connected nodes only
    #[arg(long)]
    pub connected: bool,
    /// Nodes that connected within this time (24h, 7d, 30m)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub last_connected: Option<u64>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Request {
    /// Id of the request, or the first characters of it
    pub request: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Clone, Debug)]
pub struct OneNode {
    /// Id of the node, the first characters of it, its name or its address
    #[arg(long, value_name = "NODE")]
    pub node: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Rename {
    #[command(flatten)]
    pub node: OneNode,
    /// The new name
    #[arg(long, value_name = "NAME")]
    pub name: String,
}

#[derive(Args, Debug)]
pub struct Invoke {
    #[command(flatten)]
    pub node: OneNode,
    /// Command, for example system.which
    #[arg(long, value_name = "COMMAND")]
    pub command: String,
    /// Parameters as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub params: String,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
    /// Key under which the gateway answers a repeated call without asking the node again
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Leave given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leave {
    Once,
    Always,
}

#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub node: OneNode,
    /// A line for the node's shell, in the place of a program with arguments
    #[arg(long, value_name = "LINE", conflicts_with = "argv")]
    pub raw: Option<String>,
    /// Directory on the node
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Variable to set (NAME=VALUE, repeatable); the node passes on what its owner allows
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Time the program has, in milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub command_timeout: Option<u64>,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
    /// Agent whose policy applies
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// Where the node asks for leave: give it
    #[arg(long, value_name = "HOW")]
    pub approve: Option<Leave>,
    /// Program and arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND",
        required_unless_present = "raw"
    )]
    pub argv: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Notify {
    #[command(flatten)]
    pub node: OneNode,
    #[arg(long, value_name = "TEXT", required_unless_present = "body")]
    pub title: Option<String>,
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// Sound, where the node knows it
    #[arg(long, value_name = "NAME")]
    pub sound: Option<String>,
    /// How urgent it is
    #[arg(long, value_parser = ["passive", "active", "timeSensitive"])]
    pub priority: Option<String>,
    /// How it is shown
    #[arg(long, value_parser = ["system", "overlay", "auto"], default_value = "system")]
    pub delivery: String,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Camera {
    #[command(subcommand)]
    pub command: CameraCommand,
}

#[derive(Debug, Subcommand)]
pub enum CameraCommand {
    /// Cameras of a node
    List(OneNode),
    /// A photo; prints where it was saved
    Snap(Snap),
    /// A short film; prints where it was saved
    Clip(Clip),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Facing {
    Front,
    Back,
    Both,
}

#[derive(Args, Debug)]
pub struct Snap {
    #[command(flatten)]
    pub node: OneNode,
    /// Which way the camera looks; not known on Linux
    #[arg(long)]
    pub facing: Option<Facing>,
    /// Id of the camera, from `nodes camera list`
    #[arg(long, value_name = "ID")]
    pub device_id: Option<String>,
    /// Largest width, in pixels
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_width: Option<u32>,
    /// Quality of the JPEG, 0 to 1
    #[arg(long, value_name = "0-1", value_parser = quality)]
    pub quality: Option<f64>,
    /// Time before the photo, in milliseconds
    #[arg(long, value_name = "MS")]
    pub delay_ms: Option<u64>,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Clip {
    #[command(flatten)]
    pub node: OneNode,
    /// Which way the camera looks; not known on Linux
    #[arg(long, value_parser = ["front", "back"], default_value = "front")]
    pub facing: String,
    /// Id of the camera, from `nodes camera list`
    #[arg(long, value_name = "ID")]
    pub device_id: Option<String>,
    /// How long (10s, 1m, or milliseconds)
    #[arg(long, value_name = "DURATION", default_value = "3000", value_parser = duration)]
    pub duration: u64,
    /// Without sound
    #[arg(long)]
    pub no_audio: bool,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 90_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Screen {
    #[command(subcommand)]
    pub command: ScreenCommand,
}

#[derive(Debug, Subcommand)]
pub enum ScreenCommand {
    /// A short film; prints where it was saved
    Record(Record),
    /// A picture; prints where it was saved
    Snapshot(Snapshot),
}

#[derive(Args, Debug)]
pub struct Record {
    #[command(flatten)]
    pub node: OneNode,
    /// Which screen; 0 is the first
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub screen: u32,
    /// How long (10s, 1m, or milliseconds)
    #[arg(long, value_name = "DURATION", default_value = "10000", value_parser = duration)]
    pub duration: u64,
    /// Pictures per second
    #[arg(long, value_name = "FPS", default_value_t = 10.0, value_parser = rate)]
    pub fps: f64,
    /// Without sound
    #[arg(long)]
    pub no_audio: bool,
    /// Where to save it; replaced whole
    #[arg(long, value_name = "PATH")]
    pub out: Option<std::path::PathBuf>,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Snapshot {
    #[command(flatten)]
    pub node: OneNode,
    /// Which screen; 0 is the first
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub screen: u32,
    /// Largest width, in pixels
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_width: Option<u32>,
    /// Where to save it (.png or .jpg); replaced whole
    #[arg(long, value_name = "PATH")]
    pub out: Option<std::path::PathBuf>,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Location {
    #[command(subcommand)]
    pub command: LocationCommand,
}

#[derive(Debug, Subcommand)]
pub enum LocationCommand {
    /// Where a node is now
    Get(Locate),
}

#[derive(Args, Debug)]
pub struct Locate {
    #[command(flatten)]
    pub node: OneNode,
    /// How old a known position may be, in milliseconds
    #[arg(long, value_name = "MS")]
    pub max_age: Option<u64>,
    /// How exact it has to be
    #[arg(long, value_parser = ["coarse", "balanced", "precise"])]
    pub accuracy: Option<String>,
    /// Time for finding it, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub location_timeout: u64,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Canvas {
    #[command(subcommand)]
    pub command: CanvasCommand,
}

#[derive(Debug, Subcommand)]
pub enum CanvasCommand {
    /// Show the panel
    Present(Present),
    /// Hide the panel
    Hide(Hide),
    /// Show another page in it
    Navigate(Navigate),
}

#[derive(Args, Debug)]
pub struct Present {
    #[command(flatten)]
    pub node: OneNode,
    /// What to show: an address or a path of the gateway
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    #[arg(long, value_name = "PX", allow_negative_numbers = true)]
    pub x: Option<f64>,
    #[arg(long, value_name = "PX", allow_negative_numbers = true)]
    pub y: Option<f64>,
    #[arg(long, value_name = "PX")]
    pub width: Option<f64>,
    #[arg(long, value_name = "PX")]
    pub height: Option<f64>,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Hide {
    #[command(flatten)]
    pub node: OneNode,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

#[derive(Args, Debug)]
pub struct Navigate {
    /// An address or a path of the gateway
    #[arg(value_name = "URL")]
    pub page: String,
    #[command(flatten)]
    pub node: OneNode,
    /// Time the node has, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub invoke_timeout: u64,
}

fn quality(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "must be a number above 0".to_owned())
}

/// `30m`, `24h`, `7d`, `90s`, or milliseconds.
fn duration(text: &str) -> Result<u64, String> {
    let problem = || "must be a duration such as 30m, 24h or 7d".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| problem())?;
    let unit = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(problem()),
    };
    number.checked_mul(unit).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in
            [("24h", Some(86_400_000)), ("7d", Some(604_800_000)), ("90s", Some(90_000)), ("5", Some(5))]
        {
            assert_eq!(duration(text).ok(), expected);
        }
        for wrong in ["", "h", "1w", "1.5h", "-1h", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

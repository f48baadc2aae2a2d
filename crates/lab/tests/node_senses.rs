//! What a node shows of its machine while it happens, and what it sees: output, screens, cameras.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lab::{
    node_bench::{Bench, NAME},
    process::{Gateway, GatewayOptions, Launch, Process, wait_until},
    require,
    require::{program, root},
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn everything() -> Value {
    json!({"version": 1, "defaults": {"security": "full", "ask": "off"}})
}

fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
}

fn script(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("a scratch directory takes files");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path.to_str().expect("a path").to_owned()
}

/// Output is there before the program ends, whole in the end; and a program ends with whoever watches it.
#[test]
fn output_comes_while_a_program_runs_and_it_ends_with_its_watcher() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&everything());
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    bench.approve();
    let scratch = TempDir::with_prefix("openclaw-job-").expect("a temporary directory");
    let (dir, go, pid) = (scratch.path(), scratch.path().join("go"), scratch.path().join("pid"));
    let slow = format!(
        "#!/bin/sh\necho first\nuntil [ -e {} ]; do sleep 0.05; done\necho oops >&2\necho last\nexit 7\n",
        go.display()
    );
    let slow = script(dir, "slow.sh", &slow);
    let mut job = bench.cli(&["nodes", "run", "--node", NAME, "--", &slow]).start("job");
    wait_until("the first line", || (job.stdout() == "first\n").then_some(()));
    assert!(job.ended().is_none(), "{}", job.said());
    fs::write(&go, "").expect("a scratch directory takes files");
    let status = wait_until("the end of the job", || job.ended());
    assert_eq!((status.code(), job.stdout().as_str(), job.stderr().as_str()), (Some(7), "first\nlast\n", "oops\n"));

    let many = bench.run(&["--raw", "seq 30000"]);
    let expected: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    assert!(many.stdout == expected, "{} of {} bytes", many.stdout.len(), expected.len());

    let endless = format!("#!/bin/sh\necho $$ > {}\necho here\nwhile :; do sleep 1; done\n", pid.display());
    let endless = script(dir, "endless.sh", &endless);
    let mut job =
        bench.cli(&["nodes", "run", "--node", NAME, "--invoke-timeout", "600000", "--", &endless]).start("watched");
    wait_until("its first line", || (job.stdout() == "here\n").then_some(()));
    let pid = fs::read_to_string(pid).expect("it said who it is").trim().to_owned();
    assert!(alive(&pid));
    job.kill();
    wait_until("the end of what was watched", || (!alive(&pid)).then_some(()));
}

/// A node at a gateway whose owner allows everything it could see.
fn seeing(config: &str) -> (Gateway, Bench) {
    let allow = json!({"gateway": {"nodes": {"commands": {"allow": ["camera.snap", "camera.clip"]}}}});
    let gateway = Gateway::start_with(GatewayOptions { config: Some(allow.to_string()), ..GatewayOptions::default() });
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&everything());
    fs::write(bench.state().join("openclaw.json"), config).expect("a scratch directory takes files");
    (gateway, bench)
}

struct Display {
    _server: Process,
    name: String,
}

/// An X server without a screen anybody sees, 320 × 200.
fn display(dir: &Path) -> Display {
    let args = ["-displayfd", "1", "-screen", "0", "320x200x24", "-nolisten", "tcp"];
    let server = Launch::new(program("Xvfb").expect("looked for"), dir).args(args).start("xvfb");
    let number = wait_until("a display", || server.stdout().strip_suffix('\n').map(str::to_owned));
    Display { _server: server, name: format!(":{number}") }
}

/// Width and height of a PNG.
fn png(bytes: &[u8]) -> (u32, u32) {
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{:?}", bytes.get(..16));
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

/// Each tool that this machine has takes the picture once.
#[test]
fn a_screen_is_seen_by_every_tool_there_is() {
    require!(program("Xvfb"));
    let tools: Vec<_> = ["maim", "import", "scrot"].into_iter().filter_map(|name| program(name).ok()).collect();
    if tools.is_empty() {
        return lab::require::skipped("no program that takes pictures of an X screen");
    }
    let scratch = TempDir::with_prefix("openclaw-screen-").expect("a temporary directory");
    let display = display(scratch.path());
    let (_gateway, bench) = seeing("{}");
    for (round, tool) in tools.iter().enumerate() {
        let path = scratch.path().join(format!("path-{round}"));
        fs::create_dir(&path).expect("a scratch directory takes directories");
        symlink(tool, path.join(tool.file_name().expect("a program"))).expect("a link");
        let mut node = bench
            .launch()
            .env("OPENCLAW_GATEWAY_TOKEN", &bench.token)
            .env("PATH", &path)
            .env("DISPLAY", &display.name)
            .start("node");
        let seen = bench.wait_connected(&mut node);
        if seen["approvalState"] != "approved" {
            bench.approve();
        }
        let out = scratch.path().join(format!("shot-{round}.png"));
        let saved =
            bench.says(&["nodes", "screen", "snapshot", "--node", NAME, "--out", out.to_str().expect("a path")]);
        assert_eq!(saved["file"]["path"].as_str(), out.to_str(), "{saved}");
        assert_eq!(
            (&saved["file"]["width"], &saved["file"]["height"]),
            (&json!(320), &json!(200)),
            "{}",
            tool.display()
        );
        assert_eq!(png(&fs::read(&out).expect("the picture")), (320, 200), "{}", tool.display());
        assert_eq!(fs::metadata(&out).expect("it is there").permissions().mode() & 0o777, 0o600);
        // A desktop that went away is an error and no picture.
        assert!(node.stop().success(), "{}", node.said());
        wait_until("the node gone", || bench.node().filter(|node| node["connected"] == false));
    }
    let bad = bench.cli(&["nodes", "screen", "snapshot", "--node", NAME]).run();
    assert!(!bad.status.success() && bad.stderr.contains("not connected"), "{bad:#?}");
}

/// Gives a program a /dev of its own, with one camera that is a plain file.
const OWN_DEVICES: &str = r#"
set -e
dir=$1; shift
mount -t tmpfs own "$dir"
for name in null zero full random urandom tty; do
    : > "$dir/$name"
    mount --bind "/dev/$name" "$dir/$name"
done
: > "$dir/video0"
mount --bind "$dir" /dev
exec "$@"
"#;

/// What `ffmpeg` is asked is written down, and answered with a picture of 2 × 1 pixels.
const FFMPEG: &str = r#"#!/bin/sh
printf '%s|' "$@" >> "$ARGV_FILE"; echo >> "$ARGV_FILE"
for last; do :; done
case "$*" in
    *list_formats*) echo '[video4linux2] Raw : yuyv422 : 640x480' >&2; exit 1 ;;
esac
printf "$PICTURE" > "$last"
"#;

/// The head of a JPEG with a frame of 2 × 1.
const JPEG: &str = r"\377\330\377\340\000\004\000\000\377\300\000\021\010\000\001\000\002\003";

/// Cameras of Linux: what the recorder is told, and what the owner gets. No camera was opened: the device is a plain file and
/// the recorder a script.
#[test]
fn cameras_are_asked_as_the_owner_asked() {
    let unshare = require!(program("unshare"));
    require!(root());
    let (_gateway, bench) =
        seeing(r#"{"plugins": {"entries": {"linux-node": {"config": {"camera": {"enabled": true}}}}}}"#);
    let scratch = TempDir::with_prefix("openclaw-camera-").expect("a temporary directory");
    let dev = scratch.path().join("dev");
    let bin = scratch.path().join("bin");
    for dir in [&dev, &bin] {
        fs::create_dir(dir).expect("a scratch directory takes directories");
    }
    let argv = scratch.path().join("argv");
    let text = FFMPEG.replace("$ARGV_FILE", argv.to_str().expect("a path")).replace("$PICTURE", JPEG);
    script(&bin, "ffmpeg", &text);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut node = bench
        .launch()
        .env("OPENCLAW_GATEWAY_TOKEN", &bench.token)
        .env("PATH", path)
        .by(unshare, ["-m", "--", "sh", "-c", OWN_DEVICES, "sh", dev.to_str().expect("a path")])
        .start("node");
    bench.wait_connected(&mut node);
    bench.approve();
    let listed = bench.says(&["nodes", "camera", "list", "--node", NAME]);
    assert_eq!(listed, json!([{"id": "/dev/video0", "name": "video0", "position": "unknown", "deviceType": "v4l2"}]));
    let snapped = bench.says(&[
        "nodes",
        "camera",
        "snap",
        "--node",
        NAME,
        "--facing",
        "front",
        "--max-width",
        "800",
        "--quality",
        "0.5",
        "--delay-ms",
        "0",
    ]);
    let file = snapped["files"][0].clone();
    assert_eq!((&file["facing"], &file["width"], &file["height"]), (&json!("unknown"), &json!(2), &json!(1)), "{file}");
    let photo = file["path"].as_str().expect("a path");
    assert_eq!(fs::read(photo).expect("the photo").get(..4), Some(&[0xff, 0xd8, 0xff, 0xe0][..]));
    assert_eq!(fs::metadata(photo).expect("it is there").permissions().mode() & 0o777, 0o600);
    fs::remove_file(photo).expect("it is ours");
    let asked = fs::read_to_string(&argv).expect("what was asked");
    let last = asked.lines().last().expect("a line");
    assert!(
        last.contains("|-f|v4l2|-i|/dev/video0|-ss|0.000|-frames:v|1|-vf|scale=min(iw\\,800):-2|-q:v|17|"),
        "{last}"
    );

    let clip = bench.says(&["nodes", "camera", "clip", "--node", NAME, "--duration", "1s", "--no-audio"]);
    assert_eq!((&clip["file"]["durationMs"], &clip["file"]["hasAudio"]), (&json!(1000.0), &json!(false)), "{clip}");
    fs::remove_file(clip["file"]["path"].as_str().expect("a path")).expect("it is ours");
    let asked = fs::read_to_string(&argv).expect("what was asked");
    let last = asked.lines().last().expect("a line");
    assert!(last.contains("|-i|/dev/video0|-t|1.000|") && last.contains("|-an|"), "{last}");
    // A camera that is not there is asked nothing.
    let other = bench.cli(&["nodes", "camera", "snap", "--node", NAME, "--device-id", "/etc/passwd"]).run();
    assert!(!other.status.success() && other.stderr.contains("camera device not found"), "{other:#?}");
    assert!(node.stop().success(), "{}", node.said());
}

/// Pictures come as base64 in the answer; raw callers get the same.
#[test]
fn a_picture_is_in_the_answer() {
    require!(program("Xvfb"));
    require!(program("scrot"));
    let scratch = TempDir::with_prefix("openclaw-screen-").expect("a temporary directory");
    let display = display(scratch.path());
    let (_gateway, bench) = seeing("{}");
    let mut node =
        bench.launch().env("OPENCLAW_GATEWAY_TOKEN", &bench.token).env("DISPLAY", &display.name).start("node");
    bench.wait_connected(&mut node);
    bench.approve();
    let payload = bench.invoke("screen.snapshot", &json!({"format": "png"}));
    let bytes = STANDARD.decode(payload["base64"].as_str().expect("text")).expect("base64");
    assert_eq!(png(&bytes), (320, 200));
    assert_eq!((&payload["format"], &payload["screenIndex"]), (&json!("png"), &json!(0)));
}

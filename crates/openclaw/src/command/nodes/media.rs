//! `openclaw nodes camera|screen|location|canvas`: what phones and desktops see and show.
//!
//! Pictures and films go to new files that only their owner can read: in the temporary directory, or where `--out` says.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_config::files;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Desk, READ, WRITE,
    args::{
        Camera, CameraCommand, Canvas, CanvasCommand, Clip, Facing, Location, LocationCommand, OneNode, Record, Screen,
        ScreenCommand, Snap, Snapshot,
    },
    ask, fresh_key, pick, reach, say,
};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, inert,
        table::{self, Cell},
    },
    reach::block_on,
};

/// A request to a node.
struct Wish<'a> {
    command: &'a str,
    invoke_timeout: u64,
    params: Value,
}

/// A picture or film in a node's answer.
#[derive(Debug, Deserialize)]
struct Media {
    format: String,
    /// Apps may give an address instead; this program fetches nothing from nodes.
    base64: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

pub fn camera(context: &Context, args: &Camera) -> Outcome {
    match &args.command {
        CameraCommand::List(args) => cameras(context, args),
        CameraCommand::Snap(args) => snap(context, args),
        CameraCommand::Clip(args) => clip(context, args),
    }
}

pub fn screen(context: &Context, args: &Screen) -> Outcome {
    match &args.command {
        ScreenCommand::Record(args) => record(context, args),
        ScreenCommand::Snapshot(args) => snapshot(context, args),
    }
}

fn cameras(context: &Context, args: &OneNode) -> Outcome {
    let wish = |_: &pick::Picked| Ok(vec![Wish { command: "camera.list", invoke_timeout: 15_000, params: json!({}) }]);
    let (_, answer) = only(payloads(context, args, wish)?);
    let devices = answer["devices"].as_array().cloned().unwrap_or_default();
    if args.at.json {
        output::json(&devices);
        return Ok(0);
    }
    if devices.is_empty() {
        output::line("The node sees no camera.");
        return Ok(0);
    }
    let text = |device: &Value, key: &str| Cell::from(inert(device[key].as_str().unwrap_or("-")).into_owned());
    let row = |device: &Value| ["id", "name", "position"].map(|key| text(device, key)).to_vec();
    let rows: Vec<Vec<Cell>> = devices.iter().map(row).collect();
    output::print(&table::columns(context.output.out, &["id", "name", "position"], &rows));
    Ok(0)
}

fn snap(context: &Context, args: &Snap) -> Outcome {
    let wish = |picked: &pick::Picked| {
        let request = |facing: Option<&str>| {
            let mut params = json!({"format": "jpg"});
            set(&mut params, "facing", facing);
            set(&mut params, "maxWidth", args.max_width);
            set(&mut params, "quality", args.quality);
            set(&mut params, "delayMs", args.delay_ms);
            set(&mut params, "deviceId", args.device_id.as_deref());
            Wish { command: "camera.snap", invoke_timeout: args.invoke_timeout, params }
        };
        Ok(facings(args, picked.linux)?.into_iter().map(request).collect())
    };
    let mut found = Vec::new();
    for (params, answer) in payloads(context, &args.node, wish)? {
        let facing = params["facing"].as_str().unwrap_or("unknown").to_owned();
        let (path, media) = keep(answer, &format!("camera-snap-{facing}"), None)?;
        found.push(json!({"facing": facing, "path": path, "width": media.get("width"), "height": media.get("height")}));
    }
    saved(args.node.at.json, &found, &json!({ "files": found }));
    Ok(0)
}

/// The photos to ask for. V4L2 does not say where a camera looks.
fn facings(args: &Snap, linux: bool) -> Result<Vec<Option<&'static str>>, Failure> {
    Ok(match args.facing {
        _ if linux => vec![None],
        None => vec![None],
        Some(Facing::Both) if args.device_id.is_some() => {
            return Err(Failure::new("--facing both takes two cameras, and --device-id names one"));
        }
        Some(Facing::Both) => vec![Some("front"), Some("back")],
        Some(Facing::Front) => vec![Some("front")],
        Some(Facing::Back) => vec![Some("back")],
    })
}

fn clip(context: &Context, args: &Clip) -> Outcome {
    let wish = |picked: &pick::Picked| {
        let mut params = json!({"durationMs": args.duration, "includeAudio": !args.no_audio, "format": "mp4"});
        set(&mut params, "facing", (!picked.linux).then_some(&args.facing));
        set(&mut params, "deviceId", args.device_id.as_deref());
        Ok(vec![Wish { command: "camera.clip", invoke_timeout: args.invoke_timeout, params }])
    };
    let (params, answer) = only(payloads(context, &args.node, wish)?);
    let facing = params["facing"].as_str().unwrap_or("unknown").to_owned();
    let (path, media) = keep(answer, &format!("camera-clip-{facing}"), None)?;
    let file = json!({"facing": facing, "path": path, "durationMs": media.get("durationMs"), "hasAudio": media.get("hasAudio")});
    saved(args.node.at.json, std::slice::from_ref(&file), &json!({ "file": file }));
    Ok(0)
}

fn record(context: &Context, args: &Record) -> Outcome {
    let params = json!({
        "durationMs": args.duration, "screenIndex": args.screen, "fps": args.fps, "format": "mp4",
        "includeAudio": !args.no_audio,
    });
    let wish = |_: &pick::Picked| {
        Ok(vec![Wish { command: "screen.record", invoke_timeout: args.invoke_timeout, params: params.clone() }])
    };
    let (_, answer) = only(payloads(context, &args.node, wish)?);
    let (path, media) = keep(answer, "screen-record", args.out.as_deref())?;
    let mut file = json!({ "path": path });
    for key in ["durationMs", "fps", "screenIndex", "hasAudio"] {
        set(&mut file, key, media.get(key));
    }
    saved(args.node.at.json, std::slice::from_ref(&file), &json!({ "file": file }));
    Ok(0)
}

fn snapshot(context: &Context, args: &Snapshot) -> Outcome {
    let mut params = json!({"screenIndex": args.screen});
    set(&mut params, "maxWidth", args.max_width);
    // What the name of the file promises.
    let promised = args.out.as_deref().and_then(Path::extension).and_then(|extension| match extension.to_str()? {
        "jpg" | "jpeg" => Some("jpeg"),
        "png" => Some("png"),
        _ => None,
    });
    set(&mut params, "format", promised);
    let wish = |_: &pick::Picked| {
        Ok(vec![Wish { command: "screen.snapshot", invoke_timeout: args.invoke_timeout, params: params.clone() }])
    };
    let (_, answer) = only(payloads(context, &args.node, wish)?);
    let (path, media) = keep(answer, "screen-snapshot", args.out.as_deref())?;
    let mut file = json!({ "path": path });
    for key in ["screenIndex", "width", "height", "capturedAtMs"] {
        set(&mut file, key, media.get(key));
    }
    saved(args.node.at.json, std::slice::from_ref(&file), &json!({ "file": file }));
    Ok(0)
}

pub fn location(context: &Context, args: &Location) -> Outcome {
    let LocationCommand::Get(args) = &args.command;
    let mut params = json!({"timeoutMs": args.location_timeout});
    set(&mut params, "maxAgeMs", args.max_age);
    set(&mut params, "desiredAccuracy", args.accuracy.as_deref());
    let wish = |_: &pick::Picked| {
        Ok(vec![Wish { command: "location.get", invoke_timeout: args.invoke_timeout, params: params.clone() }])
    };
    let (_, answer) = only(payloads(context, &args.node, wish)?);
    match (answer["lat"].as_f64(), answer["lon"].as_f64()) {
        (Some(lat), Some(lon)) if !args.node.at.json => {
            let accuracy = answer["accuracyMeters"].as_f64().map(|metres| format!(" ±{metres:.1}m"));
            output::line(format!("{lat},{lon}{}", accuracy.unwrap_or_default()));
        }
        _ => output::json(&answer),
    }
    Ok(0)
}

pub fn canvas(context: &Context, args: &Canvas) -> Outcome {
    let (node, invoke_timeout, command, params, done) = match &args.command {
        CanvasCommand::Present(args) => {
            let mut params = json!({});
            set(&mut params, "url", args.target.as_deref());
            let mut placement = json!({});
            for (key, value) in [("x", args.x), ("y", args.y), ("width", args.width), ("height", args.height)] {
                set(&mut placement, key, value);
            }
            set(&mut params, "placement", placement.as_object().filter(|placement| !placement.is_empty()));
            (&args.node, args.invoke_timeout, "canvas.present", params, "Shown")
        }
        CanvasCommand::Hide(args) => (&args.node, args.invoke_timeout, "canvas.hide", Value::Null, "Hidden"),
        CanvasCommand::Navigate(args) => {
            (&args.node, args.invoke_timeout, "canvas.navigate", json!({"url": args.page}), "Shown")
        }
    };
    let reach = reach(context, &node.at)?;
    let (answer, picked) = block_on(async {
        let desk = Desk::open(reach, &[READ, WRITE]).await?;
        let picked = desk.node(&node.node).await?;
        let answer = ask(&desk, &picked.id, command, params, invoke_timeout, &fresh_key()?).await?;
        desk.close().await;
        Ok::<_, Failure>((answer, picked))
    })?;
    say(context, node.at.json, &answer, &format!("{done} on {}.", picked.name))
}

/// Asks one node for one thing after the other; what is asked may depend on the node. Gives parameters and payloads.
fn payloads<'a>(
    context: &Context,
    at: &OneNode,
    wishes: impl FnOnce(&pick::Picked) -> Result<Vec<Wish<'a>>, Failure>,
) -> Result<Vec<(Value, Value)>, Failure> {
    let reach = reach(context, &at.at)?;
    let _progress = context.output.progress(format!("Asking {} …", inert(&at.node)));
    block_on(async {
        let desk = Desk::open(reach, &[READ, WRITE]).await?;
        let picked = desk.node(&at.node).await?;
        let mut answers = Vec::new();
        for Wish { command, invoke_timeout, params } in wishes(&picked)? {
            let mut answer = ask(&desk, &picked.id, command, params.clone(), invoke_timeout, &fresh_key()?).await?;
            answers.push((params, answer["payload"].take()));
        }
        desk.close().await;
        Ok(answers)
    })
}

fn only(mut answers: Vec<(Value, Value)>) -> (Value, Value) {
    answers.pop().unwrap_or_default()
}

/// Writes what was captured to a private file: `out`, replaced whole, or a new one. Returns where, and what else the node
/// said of it.
fn keep(payload: Value, name: &str, out: Option<&Path>) -> Result<(PathBuf, Map<String, Value>), Failure> {
    let unusable = |why: String| Failure::new(format!("The node's answer holds no capture: {why}."));
    let media: Media = serde_json::from_value(payload).map_err(|error| unusable(error.to_string()))?;
    let Some(text) = media.base64 else {
        return Err(unusable("it gives an address to fetch it from, which this command does not do".into()));
    };
    let bytes = STANDARD.decode(text).map_err(|error| unusable(format!("its base64 is damaged ({error})")))?;
    let (path, written) = match out {
        Some(path) => (path.to_owned(), files::write_private_atomic(path, &bytes)),
        None => {
            let file = format!("openclaw-{name}-{}.{}", fresh_key()?, extension(&media.format));
            let path = std::env::temp_dir().join(file);
            let written = files::write_new_private(&path, &bytes);
            (path, written)
        }
    };
    written.map_err(|error| Failure::new(format!("The capture could not be saved: {error}.")))?;
    Ok((path, media.more))
}

/// What a node calls the format, fit to end a file's name.
fn extension(format: &str) -> &str {
    match format {
        "jpeg" => "jpg",
        plain if (1..=5).contains(&plain.len()) && plain.bytes().all(|b| b.is_ascii_alphanumeric()) => plain,
        _ => "bin",
    }
}

fn saved(as_json: bool, files: &[Value], all: &Value) {
    if as_json {
        return output::json(all);
    }
    for file in files {
        output::line(inert(file["path"].as_str().unwrap_or_default()));
    }
}

fn set(object: &mut Value, key: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        object[key] = json!(value);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn captures_are_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("shot.png");
        std::fs::write(&out, "what was there before and is longer").unwrap();
        let payload = json!({"format": "png", "base64": "iVBORw==", "width": 3});
        let (path, more) = keep(payload.clone(), "screen-snapshot", Some(&out)).unwrap();
        assert_eq!((path.as_path(), more["width"].as_u64()), (out.as_path(), Some(3)));
        assert_eq!(std::fs::read(&out).unwrap(), b"\x89PNG");
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);

        let (path, _) = keep(payload, "screen-snapshot", None).unwrap();
        assert_eq!(path.extension().unwrap(), "png");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn answers_without_a_capture_write_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("shot.png");
        for payload in [
            json!(null),
            json!({"format": "png"}),
            json!({"format": "png", "base64": "%%"}),
            json!({"format": "png", "url": "https://192.0.2.1/x"}),
        ] {
            assert!(keep(payload.clone(), "x", Some(&out)).is_err(), "{payload}");
        }
        assert!(!out.exists());
    }

    #[test]
    fn names_of_formats_stay_in_the_directory() {
        for (format, expected) in
            [("jpeg", "jpg"), ("mp4", "mp4"), ("../x", "bin"), ("", "bin"), ("a/b", "bin"), ("toolong", "bin")]
        {
            assert_eq!(extension(format), expected);
        }
    }
}

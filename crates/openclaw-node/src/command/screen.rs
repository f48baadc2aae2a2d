//! `screen.snapshot {screenIndex?, maxWidth?, quality?, format?}`: a picture of the desktop, taken by the tool this
//! desktop has. Offered only where there is a desktop and a tool.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Failure, Toolbox, image, tool_ended};
use crate::now_ms;

const LIMIT: Duration = Duration::from_secs(20);
/// Largest picture that still fits in a frame as base64; the reference's number, 24.9 MiB of text.
pub const MAX_MEDIA_BYTES: u64 = 26_148_864 / 4 * 3;
const CODE: &str = "SCREEN_UNAVAILABLE";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Params {
    screen_index: Option<u32>,
    max_width: Option<u32>,
    format: Option<String>,
}

/// A program that takes pictures of this desktop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    program: PathBuf,
    /// Options before the file.
    options: &'static [&'static str],
}

/// The first tool that fits this desktop. Wayland's own comes first: under Wayland an X11 tool sees black.
pub fn tool(toolbox: &Toolbox) -> Option<Tool> {
    const WAYLAND: &[(&str, &[&str])] =
        &[("grim", &[]), ("gnome-screenshot", &["-f"]), ("spectacle", &["-b", "-n", "-o"])];
    const X11: &[(&str, &[&str])] = &[
        ("maim", &[]),
        ("import", &["-silent", "-window", "root"]),
        ("scrot", &["-o"]),
        ("gnome-screenshot", &["-f"]),
        ("spectacle", &["-b", "-n", "-o"]),
    ];
    const MAC: &[(&str, &[&str])] = &[("screencapture", &["-x"])];
    let has = |name: &str| toolbox.env.get(name).is_some_and(|value| !value.is_empty());
    let tools = match () {
        () if cfg!(target_os = "macos") => MAC,
        () if has("WAYLAND_DISPLAY") => WAYLAND,
        () if has("DISPLAY") => X11,
        () => return None,
    };
    tools.iter().find_map(|(name, options)| Some(Tool { program: toolbox.find(name)?, options }))
}

pub async fn run(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let params: Params = call.optional_params()?;
    let tool = tool(toolbox).ok_or_else(|| Failure::new(CODE, format!("{CODE}: no desktop, or no tool to see it")))?;
    let extension = match params.format.as_deref() {
        None | Some("png") => "png",
        Some("jpeg" | "jpg") => "jpg",
        Some(_) => return Err(Failure::invalid("INVALID_REQUEST: format must be jpeg or png")),
    };
    if params.screen_index.is_some_and(|index| index > 0) {
        return Err(Failure::invalid("INVALID_REQUEST: screenIndex: the whole desktop is one picture here"));
    }
    let dir = scratch()?;
    let file = dir.path().join(format!("screen.{extension}"));
    let mut argv = vec![tool.program.to_string_lossy().into_owned()];
    argv.extend(tool.options.iter().map(|option| (*option).to_owned()));
    if tool.program.ends_with("grim") && extension == "jpg" {
        argv.extend(["-t", "jpeg"].map(str::to_owned));
    }
    argv.push(file.to_string_lossy().into_owned());
    tool_ended(&toolbox.tool(argv, LIMIT, call).await?, CODE)?;
    let mut picture = read(&file, CODE)?;
    if let Some(limit) = params.max_width.filter(|limit| *limit > 0)
        && image::describe(&picture).is_some_and(|(_, width, _)| width > limit)
        && let Some(smaller) = shrunk(toolbox, call, dir.path(), &file, extension, limit).await?
    {
        picture = smaller;
    }
    let (kind, width, height) = image::describe(&picture)
        .ok_or_else(|| Failure::new(CODE, format!("{CODE}: the tool's picture cannot be read")))?;
    let format = if kind == image::Kind::Png { "png" } else { "jpeg" };
    Ok(json!({
        "format": format, "base64": STANDARD.encode(&picture), "screenIndex": 0, "width": width, "height": height,
        "capturedAtMs": now_ms(),
    }))
}

/// The picture at most `limit` wide, where ffmpeg is at hand; the picture as it is otherwise.
async fn shrunk(
    toolbox: &Toolbox,
    call: &Call,
    dir: &Path,
    file: &Path,
    extension: &str,
    limit: u32,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(ffmpeg) = toolbox.find("ffmpeg") else { return Ok(None) };
    let smaller = dir.join(format!("smaller.{extension}"));
    let scale = format!("scale={limit}:-2");
    let paths = [ffmpeg.to_string_lossy(), file.to_string_lossy(), smaller.to_string_lossy()].map(|p| p.into_owned());
    let [ffmpeg, from, to] = paths;
    let argv = [&ffmpeg, "-hide_banner", "-loglevel", "error", "-y", "-i", &from, "-vf", &scale, &to];
    let argv = argv.into_iter().map(str::to_owned).collect();
    tool_ended(&toolbox.tool(argv, LIMIT, call).await?, CODE)?;
    read(&smaller, CODE).map(Some)
}

/// A private directory for a capture, gone afterwards.
pub fn scratch() -> Result<tempfile::TempDir, Failure> {
    let dir = tempfile::Builder::new().prefix("openclaw-node-").tempdir();
    dir.map_err(|error| Failure::unavailable(format!("no place for the capture: {error}")))
}

/// What a tool captured, unless it is too large to be sent.
pub fn read(file: &Path, code: &'static str) -> Result<Vec<u8>, Failure> {
    let problem = |error: std::io::Error| Failure::new(code, format!("{code}: the tool wrote nothing: {error}"));
    if std::fs::metadata(file).map_err(problem)?.len() > MAX_MEDIA_BYTES {
        let text = "PAYLOAD_TOO_LARGE: the capture exceeds the 25 MB base64 limit";
        return Err(Failure::new("PAYLOAD_TOO_LARGE", text));
    }
    std::fs::read(file).map_err(problem)
}

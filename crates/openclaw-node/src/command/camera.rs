//! `camera.list`, `camera.snap`, `camera.clip`: V4L2 cameras through ffmpeg. Off until the owner sets
//! `plugins.entries.linux-node.config.camera.enabled`, and dangerous at the gateway besides.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Failure, Toolbox, image, screen, tool_ended};

const CODE: &str = "CAMERA_UNAVAILABLE";
/// Longest clip.
const MAX_CLIP_MS: f64 = 60_000.0;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Params {
    device_id: Option<String>,
    max_width: Option<f64>,
    quality: Option<f64>,
    format: Option<String>,
    delay_ms: Option<f64>,
    duration_ms: Option<f64>,
    include_audio: Option<bool>,
}

/// ffmpeg, where the owner switched cameras on and there may be one.
pub fn tool(toolbox: &Toolbox) -> Option<PathBuf> {
    if toolbox.camera_enabled && cfg!(target_os = "linux") { toolbox.find("ffmpeg") } else { None }
}

fn ffmpeg(toolbox: &Toolbox) -> Result<String, Failure> {
    if !toolbox.camera_enabled {
        let text =
            "CAMERA_DISABLED: enable plugins.entries.linux-node.config.camera.enabled and restart the node service";
        return Err(Failure::new("CAMERA_DISABLED", text));
    }
    let found = tool(toolbox).ok_or_else(|| Failure::new(CODE, format!("{CODE}: ffmpeg not found")))?;
    Ok(found.to_string_lossy().into_owned())
}

pub async fn list(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let ffmpeg = ffmpeg(toolbox)?;
    Ok(json!({"devices": devices(toolbox, call, &ffmpeg).await?}))
}

/// Devices that give pictures; others of the same kind only carry metadata.
async fn devices(toolbox: &Toolbox, call: &Call, ffmpeg: &str) -> Result<Vec<Value>, Failure> {
    let mut numbers: Vec<u32> = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers {
        let id = format!("/dev/video{number}");
        let argv = [ffmpeg, "-hide_banner", "-f", "v4l2", "-list_formats", "all", "-i", &id];
        let argv = argv.into_iter().map(str::to_owned).collect();
        // Listing formats ends with an error by design; what it printed counts.
        let outcome = toolbox.tool(argv, Duration::from_secs(5), call).await?;
        let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
        if said.contains("Raw") || said.contains("Compressed") {
            let name = std::fs::read_to_string(format!("/sys/class/video4linux/video{number}/name"));
            let name = name.map_or_else(|_| format!("video{number}"), |name| name.trim().to_owned());
            found.push(json!({"id": id, "name": name, "position": "unknown", "deviceType": "v4l2"}));
        }
    }
    Ok(found)
}

async fn device(toolbox: &Toolbox, call: &Call, ffmpeg: &str, wanted: Option<&str>) -> Result<String, Failure> {
    let found = devices(toolbox, call, ffmpeg).await?;
    let ids = || found.iter().filter_map(|device| device["id"].as_str());
    match wanted.map(str::trim).filter(|id| !id.is_empty()) {
        // Compared with what was found, so that the name of some other file is not opened.
        Some(wanted) => ids().find(|id| *id == wanted).map(str::to_owned).ok_or_else(|| {
            Failure::invalid(format!("INVALID_REQUEST: camera device not found: {}", wanted.escape_debug()))
        }),
        None => {
            let first = ids().next().map(str::to_owned);
            first.ok_or_else(|| Failure::new(CODE, format!("{CODE}: no V4L2 camera devices found")))
        }
    }
}

pub async fn snap(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let ffmpeg = ffmpeg(toolbox)?;
    let params: Params = call.optional_params()?;
    let format = params.format.map_or_else(|| "jpg".to_owned(), |format| format.to_ascii_lowercase());
    if !matches!(format.as_str(), "jpg" | "jpeg") {
        return Err(Failure::invalid("INVALID_REQUEST: unsupported camera image format"));
    }
    let device = device(toolbox, call, &ffmpeg, params.device_id.as_deref()).await?;
    let width = params.max_width.filter(|width| *width >= 2.0).map_or(1600.0, f64::floor);
    let delay = finite(params.delay_ms, 2000.0).clamp(0.0, 10_000.0);
    let quality = (31.0 - finite(params.quality, 0.9).clamp(0.05, 1.0) * 29.0).round();
    let dir = screen::scratch()?;
    let file = dir.path().join("capture.jpg");
    let (skip, scale, quality) =
        (format!("{:.3}", delay / 1000.0), format!("scale=min(iw\\,{width}):-2"), quality.to_string());
    let to = file.to_string_lossy();
    let argv = [
        &ffmpeg,
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        "-f",
        "v4l2",
        "-i",
        &device,
        "-ss",
        &skip,
        "-frames:v",
        "1",
        "-vf",
        &scale,
        "-q:v",
        &quality,
        &*to,
    ];
    let limit = Duration::from_secs_f64(delay / 1000.0 + 20.0);
    tool_ended(&toolbox.tool(argv.into_iter().map(str::to_owned).collect(), limit, call).await?, CODE)?;
    let picture = screen::read(&file, CODE)?;
    let (_, width, height) = image::describe(&picture)
        .ok_or_else(|| Failure::new(CODE, format!("{CODE}: FFmpeg returned an invalid JPEG")))?;
    Ok(json!({"format": format, "base64": STANDARD.encode(&picture), "width": width, "height": height}))
}

pub async fn clip(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let ffmpeg = ffmpeg(toolbox)?;
    let params: Params = call.optional_params()?;
    if params.format.as_deref().is_some_and(|format| !format.eq_ignore_ascii_case("mp4")) {
        return Err(Failure::invalid("INVALID_REQUEST: unsupported camera clip format"));
    }
    let device = device(toolbox, call, &ffmpeg, params.device_id.as_deref()).await?;
    let duration = finite(params.duration_ms, 3000.0).clamp(250.0, MAX_CLIP_MS).floor();
    let audio = params.include_audio.unwrap_or(true);
    let dir = screen::scratch()?;
    let file = dir.path().join("capture.mp4");
    let (seconds, to) = (format!("{:.3}", duration / 1000.0), file.to_string_lossy());
    let mut argv = vec![&*ffmpeg, "-hide_banner", "-loglevel", "error", "-y", "-f", "v4l2", "-i", &device];
    if audio {
        argv.extend(["-f", "pulse", "-i", "default"]);
    }
    argv.extend(["-t", &seconds, "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]);
    argv.extend(["-movflags", "+faststart"]);
    if audio {
        argv.extend(["-map", "0:v:0", "-map", "1:a:0", "-c:a", "aac", "-b:a", "128k", "-shortest"]);
    } else {
        argv.push("-an");
    }
    argv.push(&to);
    let limit = Duration::from_secs_f64(duration / 1000.0 + 30.0);
    tool_ended(&toolbox.tool(argv.into_iter().map(str::to_owned).collect(), limit, call).await?, CODE)?;
    let clip = screen::read(&file, CODE)?;
    Ok(json!({"format": "mp4", "base64": STANDARD.encode(&clip), "durationMs": duration, "hasAudio": audio}))
}

fn finite(value: Option<f64>, default: f64) -> f64 {
    value.filter(|value| value.is_finite()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use serde_json::json;

    #[tokio::test]
    async fn cameras_are_off_until_the_owner_says_so() {
        let bench = Bench::new("{}");
        for command in ["camera.list", "camera.snap", "camera.clip"] {
            assert_eq!(bench.ask(command, json!({})).await.unwrap_err().code, "CAMERA_DISABLED");
        }
        assert!(!bench.toolbox.offers().iter().any(|(command, _)| command.starts_with("camera.")));
    }
}

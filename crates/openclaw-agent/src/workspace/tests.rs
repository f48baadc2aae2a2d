//! The tools on real directories, the kernel's way and by components.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{CWD, FileType, Mode};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::message::{Message, Part, Role};

/// A workspace beside a directory with a secret in it.
struct Place {
    dir: TempDir,
    root: Root,
}

impl Place {
    /// Both ways of confining.
    fn both() -> [Self; 2] {
        let makers: [fn(PathBuf) -> Root; 2] = [Root::new, Root::by_components];
        makers.map(|make| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("work")).unwrap();
            fs::create_dir(dir.path().join("outside")).unwrap();
            fs::write(dir.path().join("outside/secret"), "secret").unwrap();
            let root = make(dir.path().join("work"));
            Self { dir, root }
        })
    }

    fn work(&self, path: &str) -> PathBuf {
        self.dir.path().join("work").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.dir.path().join("outside").join(path)
    }

    fn run(&self, kind: &Kind, arguments: Value) -> (bool, String) {
        let answer = (kind.run)(&self.root, arguments);
        let text = Message { role: Role::Tool, parts: answer.content }.text();
        (!answer.is_error, text)
    }

    fn read(&self, path: &str) -> (bool, String) {
        self.run(&read::TOOL, json!({"path": path}))
    }

    fn write(&self, path: &str, content: &str) -> (bool, String) {
        self.run(&write::TOOL, json!({"path": path, "content": content}))
    }

    fn edit(&self, path: &str, old: &str, new: &str) -> (bool, String) {
        self.run(&edit::TOOL, json!({"path": path, "oldText": old, "newText": new}))
    }

    fn list(&self, path: &str) -> (bool, String) {
        self.run(&list::TOOL, json!({"path": path}))
    }

    /// No tool gets at what this path names.
    fn assert_closed(&self, path: &str, word: &str) {
        for (done, text) in [self.read(path), self.write(path, "x"), self.edit(path, "secret", "x"), self.list(path)] {
            assert!(!done, "{path:?}: {text}");
            assert!(!text.contains("secret\n") && text != "secret", "{path:?}: {text}");
        }
        let (_, text) = self.read(path);
        assert!(text.contains(word), "{path:?}: {text}");
        assert_eq!(fs::read_to_string(self.outside("secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(self.outside("")).unwrap().count(), 1);
    }
}

#[test]
fn files_are_written_read_changed_and_listed() {
    for place in Place::both() {
        assert_eq!(place.write("notes/a.md", "one\ntwo\n"), (true, "Wrote \"notes/a.md\" (8 bytes, new).".to_owned()));
        assert_eq!(place.read("notes/a.md"), (true, "one\ntwo\n".to_owned()));
        let absolute = place.work("notes/a.md");
        assert_eq!(place.read(absolute.to_str().unwrap()).1, "one\ntwo\n");
        assert_eq!(place.edit("notes/a.md", "two", "2"), (true, "Changed \"notes/a.md\" at line 2.".to_owned()));
        assert_eq!(fs::read_to_string(&absolute).unwrap(), "one\n2\n");
        fs::set_permissions(&absolute, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(place.write("./notes//a.md", "three").1.contains("replacing"));
        assert_eq!(fs::metadata(&absolute).unwrap().permissions().mode() & 0o777, 0o750);
        place.write("b", "");
        assert_eq!(place.read("b").1, "(the file is empty)");
        assert_eq!(place.list(".").1, "b (0)\nnotes/");
        let (_, deep) = place.run(&list::TOOL, json!({"depth": 2}));
        assert_eq!(deep, "b (0)\nnotes/\nnotes/a.md (5)");
        // Nothing of ours is left behind.
        assert_eq!(fs::read_dir(place.work("notes")).unwrap().count(), 1);
    }
}

#[test]
fn the_directory_is_made_when_something_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path().join("a/b"));
    let place = Place { dir, root };
    assert_eq!(place.list("."), (true, "(the directory is empty)".to_owned()), "asking makes nothing");
    assert!(!place.dir.path().join("a").exists());
    assert!(place.write("x/y.txt", "z").0);
    assert_eq!(fs::read_to_string(place.dir.path().join("a/b/x/y.txt")).unwrap(), "z");
}

#[test]
fn p_92_no_path_leads_out() {
    for place in Place::both() {
        let absolute = place.outside("secret");
        for path in
            ["../outside/secret", "a/../../outside/secret", "..", "../", "./..", "/", "/etc/passwd", "~/.ssh/id", "~"]
        {
            place.assert_closed(path, "leads out of the workspace");
        }
        place.assert_closed(absolute.to_str().unwrap(), "leads out");
        place.assert_closed(&format!("{}/../outside/secret", place.work("").display()), "leads out");
        // A sibling whose name begins like the workspace's.
        place.assert_closed(&format!("{}-not/x", place.dir.path().join("work").display()), "leads out");
        place.assert_closed("a\0b", "NUL");
        place.assert_closed(&"a/".repeat(4000), "longer than");
        place.assert_closed(&"n".repeat(300), "name that is too long");
    }
}

#[test]
fn p_92_no_link_leads_out() {
    for place in Place::both() {
        symlink(place.outside("secret"), place.work("absolute")).unwrap();
        symlink("../outside/secret", place.work("relative")).unwrap();
        symlink("../outside", place.work("dir")).unwrap();
        symlink("/proc/self/root", place.work("magic")).unwrap();
        symlink("/proc/self/cwd", place.work("cwd")).unwrap();
        symlink("loop", place.work("loop")).unwrap();
        for path in
            ["absolute", "relative", "dir", "dir/secret", "dir/new", "dir/a/b", "magic/etc/passwd", "cwd/x", "loop"]
        {
            place.assert_closed(path, path);
        }
        // Not even a dangling one is written through.
        symlink("../outside/new", place.work("dangling")).unwrap();
        assert!(!place.write("dangling", "x").0);
        assert!(!place.outside("new").exists());
        let (_, listed) = place.list("");
        assert!(listed.contains("absolute (a symbolic link)") && !listed.contains("secret ("), "{listed}");
    }
}

#[test]
fn links_that_stay_inside_work_where_the_kernel_confines() {
    let [kernel, components] = Place::both();
    for place in [&kernel, &components] {
        place.write("real/file", "text");
        symlink("real", place.work("link")).unwrap();
    }
    #[cfg(target_os = "linux")]
    assert_eq!(kernel.read("link/file"), (true, "text".to_owned()));
    let (done, text) = components.read("link/file");
    assert!(!done && text.contains("link/file"), "{text}");
}

#[test]
fn p_92_swapping_a_directory_for_a_link_does_not_get_out() {
    for place in Place::both() {
        fs::create_dir(place.work("real")).unwrap();
        fs::write(place.work("real/secret"), "mine").unwrap();
        symlink("../outside", place.work("evil")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // `now` is a directory and a link out, by turns.
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::rename(place.work("real"), place.work("now"));
                    let _ = fs::rename(place.work("now"), place.work("real"));
                    let _ = fs::rename(place.work("evil"), place.work("now"));
                    let _ = fs::rename(place.work("now"), place.work("evil"));
                }
            });
            for _ in 0..2_000 {
                let (_, text) = place.read("now/secret");
                assert!(text != "secret", "{text}");
                place.write("now/new", "x");
                place.edit("now/secret", "secret", "x");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_to_string(place.outside("secret")).unwrap(), "secret");
        assert!(!place.outside("new").exists());
    }
}

#[test]
fn what_is_no_file_is_not_read() {
    for place in Place::both() {
        rustix::fs::mknodat(CWD, place.work("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.work("socket")).unwrap();
        fs::create_dir(place.work("dir")).unwrap();
        place.write("file", "text");
        let check = |(done, text): (bool, String), word: &str| assert!(!done && text.contains(word), "{text}");
        check(place.read("pipe"), "is a pipe, not a file");
        check(place.write("pipe", "x"), "is a pipe, not a file");
        check(place.read("socket"), "is a socket, not a file");
        check(place.read("dir"), "is a directory, not a file");
        check(place.read("."), "is a directory, not a file");
        check(place.write("dir", "x"), "is a directory, not a file");
        check(place.write("dir/", "x"), "not a file");
        check(place.write(".", "x"), "the workspace itself");
        check(place.list("file"), "is a file, not a directory");
        check(place.read("file/below"), "below a file");
        check(place.write("file/below", "x"), "below a file");
        check(place.read("nothing"), "there is no \"nothing\" in the workspace");
        fs::write(place.work("binary"), [b'M', b'Z', 0, 1]).unwrap();
        check(place.read("binary"), "is not text (4 bytes)");
    }
    // A device, where one can be made a workspace of.
    let place = Place { dir: tempfile::tempdir().unwrap(), root: Root::new("/dev") };
    let (done, text) = place.read("zero");
    assert!(!done && text.contains("is a device, not a file"), "{text}");
}

#[test]
fn long_files_come_in_pieces() {
    let [place, _] = Place::both();
    let check = |arguments: Value, starts: &str, ends: &str| {
        let (done, text) = place.run(&read::TOOL, arguments.clone());
        assert!(
            done && text.starts_with(starts) && text.ends_with(ends),
            "{arguments}: {} bytes …{:?}",
            text.len(),
            &text[text.len().saturating_sub(120)..]
        );
    };
    let numbered: String = (1..=5_000).map(|n| format!("line {n}\n")).collect();
    place.write("long", &numbered);
    check(
        json!({"path": "long"}),
        "line 1\nline 2\n",
        "line 2000\n\n[lines 1 to 2000 were given; go on with offset 2001]",
    );
    check(
        json!({"path": "long", "offset": 2001}),
        "line 2001\n",
        "[lines 2001 to 4000 were given; go on with offset 4001]",
    );
    check(json!({"path": "long", "offset": 4001}), "line 4001\n", "line 5000\n");
    check(json!({"path": "long", "offset": 7, "limit": 2}), "line 7\nline 8\n\n[lines 7 to 8", "offset 9]");
    check(json!({"path": "long", "offset": 0, "limit": 0}), "line 1\n\n[", "]");
    let (done, text) = place.run(&read::TOOL, json!({"path": "long", "offset": 5001}));
    assert_eq!((done, text.as_str()), (false, "\"long\" has 5000 lines; there is no line 5001."));
    place.write("wide", &format!("{}\nsecond\n", "x".repeat(200_000)));
    check(
        json!({"path": "wide"}),
        "xxx",
        "[line 1 is cut here: 50 KiB are given at once]\n[lines 1 to 1 were given; go on with offset 2]",
    );
    check(json!({"path": "wide", "offset": 2}), "second\n", "second\n");
    // Sparse and huge: memory and time stay small.
    fs::File::create(place.work("huge")).unwrap().set_len(1 << 40).unwrap();
    assert!(place.read("huge").1.contains("is not text"));
    place.write("latin", "");
    fs::write(place.work("latin"), b"caf\xe9\n").unwrap();
    check(json!({"path": "latin"}), "caf\u{fffd}\n", "\n");
}

#[test]
fn images_are_shown() {
    let [place, _] = Place::both();
    let png = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 1];
    fs::write(place.work("a.png"), png).unwrap();
    let answer = (read::TOOL.run)(&place.root, json!({"path": "a.png"}));
    let expected = Part::Image { mime: "image/png".to_owned(), data: bytes::Bytes::copy_from_slice(&png) };
    assert_eq!(answer.content[1], expected);
    let huge = fs::File::create(place.work("b.png")).unwrap();
    std::io::Write::write_all(&mut &huge, &png).unwrap();
    huge.set_len(6 << 20).unwrap();
    let (done, text) = place.read("b.png");
    assert!(!done && text.contains("up to 5 MiB"), "{text}");
}

#[test]
fn an_edit_is_exact_and_unique() {
    let [place, _] = Place::both();
    let check = |before: &str, old: &str, new: &str, expected: Result<&str, &str>| {
        place.write("f", before);
        let (done, text) = place.edit("f", old, new);
        let after = fs::read_to_string(place.work("f")).unwrap();
        match expected {
            Ok(content) => assert!(done && after == content, "{text}: {after:?}"),
            Err(word) => assert!(!done && after == before && text.contains(word), "{text}: {after:?}"),
        }
    };
    check("a b c", "b", "x", Ok("a x c"));
    check("a b c", "B", "x", Err("not there exactly"));
    check("a b b", "b", "x", Err("is there 2 times"));
    check("a b c", "", "x", Err("oldText is empty"));
    check("a b c", "b", "b", Err("the same"));
    check("one\r\ntwo\r\nthree\r\n", "one\ntwo", "1\n2", Ok("1\r\n2\r\nthree\r\n"));
    check("$1 \\n", "$1", "$2", Ok("$2 \\n"));
    check("ünïcödé", "ï", "i", Ok("ünicödé"));
    place.write("f", "a b b");
    let all = json!({"path": "f", "oldText": "b", "newText": "x", "replaceAll": true});
    assert_eq!(place.run(&edit::TOOL, all), (true, "Changed \"f\" at line 1 and 1 more places.".to_owned()));
    let (_, text) = place.edit("none", "a", "b");
    assert!(text.contains("there is no"), "{text}");
}

#[test]
fn an_edit_does_not_overwrite_what_it_has_not_seen() {
    let [place, _] = Place::both();
    place.write("f", "old");
    let inside = place.root.inside("f").unwrap();
    let (_, seen) = place.root.open_file(&inside).unwrap();
    fs::write(place.work("f"), "somebody else's").unwrap();
    let error = place.root.replace(&inside, b"new", Some(&seen)).unwrap_err();
    assert!(matches!(error, PathError::Changed(_)), "{error}");
    assert_eq!(fs::read_to_string(place.work("f")).unwrap(), "somebody else's");
}

#[test]
fn a_write_that_cannot_be_finished_leaves_the_old_file() {
    let [place, _] = Place::both();
    place.write("f", "old");
    let huge = "x".repeat(9 << 20);
    let (done, text) = place.write("f", &huge);
    assert!(!done && text.contains("8 MiB"), "{text}");
    assert_eq!(fs::read_to_string(place.work("f")).unwrap(), "old");
}

#[test]
fn a_list_is_bounded_and_one_line_per_entry() {
    let [place, _] = Place::both();
    for n in 0..600 {
        fs::write(place.work(&format!("f{n:04}")), "").unwrap();
    }
    fs::write(place.work("a\nb"), "x").unwrap();
    let (_, text) = place.list(".");
    assert!(text.starts_with("a?b (1)\nf0000 (0)\n"), "{text}");
    assert_eq!(text.lines().count(), 501);
    assert!(text.ends_with("[more than 500 entries; list a directory below]"));
}

#[tokio::test]
async fn as_tools() {
    let [place, _] = Place::both();
    let tools = tools(place.root.path());
    let told: Vec<_> = tools.iter().map(|t| (t.spec().name.as_str(), t.effects(), t.untrusted())).collect();
    let (none, some) = (Effects::None, Effects::Some);
    assert_eq!(told, [("read", none, true), ("write", some, false), ("edit", some, false), ("list", none, true)]);
    let (progress, _) = tokio::sync::mpsc::channel(1);
    let call = Call {
        id: "1".to_owned(),
        arguments: json!({"path": "f", "content": "x"}),
        cancel: Default::default(),
        progress,
    };
    assert!(!Arc::clone(&tools[1]).call(call).await.is_error);
    assert!(place.work("f").exists());
}

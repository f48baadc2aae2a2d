//! Messages as Discord wants them: pieces, files, buttons, references.

use crate::{
    channel::SendError,
    message::{Button, ButtonStyle, Media, Outbound, Poll},
};

use super::{
    api::{
        AllowedMentions, AttachmentRef, ButtonBody, MessageBody, PollAnswer, PollBody, PollText, Reference, Row,
        SUPPRESS_EMBEDS, SUPPRESS_NOTIFICATIONS,
    },
    chunk,
    config::{ReplyTo, Settings},
    markdown,
};

/// Files in one message ("Create Message": files[n], at most 10).
const MAX_FILES: usize = 10;
/// "Action Rows" and "Buttons": 5 of either, labels of 80 characters.
const MAX_ROWS: usize = 5;
const MAX_BUTTONS: usize = 5;
const MAX_LABEL: usize = 80;
/// "Poll Create Request": 10 answers of 55 characters, a question of 300, 32 days.
const MAX_ANSWERS: usize = 10;
const MAX_ANSWER: usize = 55;
const MAX_QUESTION: usize = 300;
const MAX_HOURS: u64 = 32 * 24;

/// Cuts a message into those that Discord takes at once; a piece is cut no further. Files go with the first text, buttons
/// below the last.
pub fn pieces(settings: &Settings, message: &Outbound) -> Vec<Outbound> {
    let texts = chunk::cut(&text(message), settings.text_limit, settings.max_lines);
    if texts.len() <= 1 && message.media.len() <= MAX_FILES {
        return vec![message.clone()];
    }
    // Whatever was styled is Discord's own Markdown now.
    let plain = Outbound { silent: message.silent, hints: message.hints, ..Outbound::default() };
    let mut files = message.media.chunks(MAX_FILES).map(<[Media]>::to_vec);
    let mut pieces: Vec<Outbound> = Vec::new();
    for text in texts {
        let media = if pieces.is_empty() { files.next().unwrap_or_default() } else { Vec::new() };
        pieces.push(Outbound { text, media, ..plain.clone() });
    }
    pieces.extend(files.map(|media| Outbound { media, ..plain.clone() }));
    for (number, piece) in pieces.iter_mut().enumerate() {
        let quotes = number == 0 || settings.reply_to == ReplyTo::All;
        piece.reply_to = message.reply_to.clone().filter(|_| quotes);
    }
    if let Some(last) = pieces.last_mut() {
        last.buttons.clone_from(&message.buttons);
    }
    pieces
}

/// The text in Discord's Markdown.
fn text(message: &Outbound) -> String {
    match &message.styles {
        Some(spans) => markdown::render(&message.text, spans),
        None => message.text.clone(),
    }
}

/// The body that creates a piece.
///
/// # Errors
/// What Discord would refuse.
pub fn body(settings: &Settings, piece: &Outbound, nonce: Option<String>) -> Result<MessageBody, SendError> {
    let text = chunk::head(&text(piece), settings.text_limit);
    let refused = |why: String| SendError::NotSent { why, retry_after: None };
    if text.trim().is_empty() && piece.media.is_empty() {
        return Err(refused("there is nothing in the message".to_owned()));
    }
    let largest = piece.media.iter().map(|file| file.data.len() as u64).max().unwrap_or(0);
    if largest > settings.media_max_bytes {
        let (is, may) = (largest >> 20, settings.media_max_bytes >> 20);
        return Err(refused(format!("the file has {is} MB, and channels.discord.mediaMaxMb allows {may}")));
    }
    let mut flags = if settings.suppress_embeds { SUPPRESS_EMBEDS } else { 0 };
    if piece.silent {
        flags |= SUPPRESS_NOTIFICATIONS;
    }
    // `@everyone` and `@here` are never notified, whatever a model writes; a rendered text names nobody at all.
    let parse = if piece.styles.is_some() { Vec::new() } else { vec!["users", "roles"] };
    let attachments = piece.media.iter().enumerate();
    Ok(MessageBody {
        content: text,
        enforce_nonce: nonce.is_some(),
        nonce,
        message_reference: piece
            .reply_to
            .clone()
            .filter(|id| super::api::is_snowflake(id))
            .map(|message_id| Reference { message_id, fail_if_not_exists: false }),
        allowed_mentions: AllowedMentions { parse, replied_user: true },
        components: rows(&piece.buttons),
        flags,
        attachments: attachments.map(|(id, file)| AttachmentRef { id, filename: file_name(file, id) }).collect(),
        poll: None,
    })
}

/// The body that replaces a message; what no longer fits is left out.
pub fn edited(settings: &Settings, message: &Outbound) -> MessageBody {
    let text = chunk::head(&text(message), settings.text_limit);
    // A message cannot become empty.
    let content = if text.trim().is_empty() { "…".to_owned() } else { text };
    MessageBody {
        content,
        components: rows(&message.buttons),
        // Nobody is notified again.
        allowed_mentions: AllowedMentions::default(),
        ..MessageBody::default()
    }
}

pub fn poll(poll: &Poll, nonce: Option<String>) -> Result<MessageBody, SendError> {
    let answers: Vec<PollAnswer> =
        poll.options.iter().map(|text| PollAnswer { poll_media: PollText { text: cut(text, MAX_ANSWER) } }).collect();
    if answers.is_empty() || answers.len() > MAX_ANSWERS {
        let why = format!("a Discord poll has 1 to {MAX_ANSWERS} answers");
        return Err(SendError::NotSent { why, retry_after: None });
    }
    let hours = poll.open_for.map_or(24, |time| time.as_secs().div_ceil(3_600)).clamp(1, MAX_HOURS);
    Ok(MessageBody {
        enforce_nonce: nonce.is_some(),
        nonce,
        flags: if poll.silent { SUPPRESS_NOTIFICATIONS } else { 0 },
        poll: Some(PollBody {
            question: PollText { text: cut(&poll.question, MAX_QUESTION) },
            answers,
            duration: hours,
            allow_multiselect: poll.max_selections.is_some_and(|most| most > 1),
        }),
        ..MessageBody::default()
    })
}

fn rows(buttons: &[Vec<Button>]) -> Vec<Row> {
    let button = |button: &Button| ButtonBody {
        kind: 2,
        style: match button.style {
            ButtonStyle::Plain => 2,
            ButtonStyle::Good => 3,
            ButtonStyle::Danger => 4,
        },
        label: cut(&button.label, MAX_LABEL),
        custom_id: button.data.clone(),
    };
    let rows = buttons.iter().flat_map(|row| row.chunks(MAX_BUTTONS)).filter(|row| !row.is_empty());
    rows.take(MAX_ROWS).map(|row| Row { kind: 1, components: row.iter().map(button).collect() }).collect()
}

fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// A name without directories; Discord refuses a file without one.
pub fn file_name(file: &Media, number: usize) -> String {
    let given = file.file_name.as_deref().unwrap_or_default();
    let base = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = base.chars().filter(|c| !c.is_control() && *c != '"').take(120).collect();
    if !clean.trim_matches('.').is_empty() {
        return clean;
    }
    let kind = match file.mime.split(';').next().unwrap_or_default() {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "audio/ogg" => "ogg",
        "audio/mpeg" => "mp3",
        "video/mp4" => "mp4",
        "application/pdf" => "pdf",
        "text/plain" => "txt",
        _ => "bin",
    };
    format!("file-{}.{kind}", number + 1)
}

/// 24 characters: Discord takes up to 25.
pub fn nonce() -> Option<String> {
    let mut bytes = [0_u8; 12];
    // Without randomness the message goes out without the safety of repetition.
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use openclaw_config::{Document, Env, Paths, Profile, secret_ref::SecretContext};
    use serde_json::{Value, json};

    use super::*;
    use crate::message::{Span, TextStyle};

    fn settings(config: &str) -> Settings {
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", "/nowhere")]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let doc = Document::from_text(&format!("{{channels:{{discord:{{token:'T',{config}}}}}}}"), &paths, &env);
        let doc = doc.expect("config");
        let context = SecretContext { env: &env, doc: &doc, paths: &paths };
        super::super::accounts(context).remove(0).settings.expect("settings")
    }

    fn file(name: &str) -> Media {
        Media { mime: "text/plain".into(), file_name: Some(name.into()), data: vec![0; 2 << 20].into() }
    }

    fn wire(message: &Outbound, config: &str) -> Value {
        serde_json::to_value(body(&settings(config), message, Some("n".into())).expect("a body")).expect("JSON")
    }

    #[test]
    fn pieces_are_whole_messages() {
        let button = Button { label: "Go".into(), data: "go".into(), style: ButtonStyle::Good };
        let message = Outbound {
            text: "word ".repeat(900),
            media: (0..12).map(|n| file(&format!("{n}.txt"))).collect(),
            reply_to: Some("5".into()),
            buttons: vec![vec![button]],
            ..Outbound::default()
        };
        let check = |config: &str, quoted: &[bool]| {
            let pieces = pieces(&settings(config), &message);
            let quotes: Vec<bool> = pieces.iter().map(|piece| piece.reply_to.is_some()).collect();
            assert_eq!(quotes, quoted, "{config}");
            assert_eq!(pieces.iter().map(|piece| piece.media.len()).collect::<Vec<_>>(), [10, 0, 0, 2]);
            assert_eq!(pieces.iter().filter(|piece| !piece.buttons.is_empty()).count(), 1);
            assert!(!pieces[3].buttons.is_empty());
            for piece in &pieces {
                assert_eq!(super::pieces(&settings(config), piece), std::slice::from_ref(piece), "a piece stays whole");
            }
        };
        check("", &[true, false, false, false]);
        check("replyToMode:'all'", &[true; 4]);
    }

    /// "Create Message" of the API reference.
    #[test]
    fn the_body() {
        let message =
            Outbound { text: "hi <@1>".into(), reply_to: Some("5".into()), silent: true, ..Outbound::default() };
        assert_eq!(
            wire(&message, ""),
            json!({"content": "hi <@1>", "nonce": "n", "enforce_nonce": true, "components": [], "flags": 4 | 4096,
                   "message_reference": {"message_id": "5", "fail_if_not_exists": false},
                   "allowed_mentions": {"parse": ["users", "roles"], "replied_user": true}})
        );
        assert_eq!(wire(&message, "suppressEmbeds:false")["flags"], 4096);
        let button = |style| Button { label: "x".repeat(90), data: "d".into(), style };
        let styles = [ButtonStyle::Plain, ButtonStyle::Good, ButtonStyle::Danger];
        let row: Vec<Button> = styles.into_iter().cycle().take(6).map(button).collect();
        let message = Outbound { text: "?".into(), buttons: vec![row], ..Outbound::default() };
        let rows = &wire(&message, "")["components"];
        assert_eq!((rows[0]["components"].as_array().map(Vec::len), rows[0]["type"].as_u64()), (Some(5), Some(1)));
        assert_eq!(
            (rows[0]["components"][1]["style"].as_u64(), rows[1]["components"][0]["style"].as_u64()),
            (Some(3), Some(4))
        );
        assert_eq!(rows[0]["components"][0]["label"].as_str().map(str::len), Some(80));
    }

    #[test]
    fn a_rendered_text_notifies_nobody() {
        let len = "run <@1> @everyone".len();
        let styles = Some(vec![Span { start: 0, len, style: TextStyle::Pre { language: None } }]);
        let message = Outbound { text: "run <@1> @everyone".into(), styles, ..Outbound::default() };
        let body = wire(&message, "");
        assert_eq!(body["allowed_mentions"]["parse"], json!([]));
        assert_eq!(body["content"], "```\nrun <@1> @everyone\n```");
    }

    #[test]
    fn what_cannot_be_sent() {
        let check = |message: &Outbound, config: &str, words: &str| {
            let error = body(&settings(config), message, None).expect_err("refused");
            assert!(matches!(&error, SendError::NotSent { why, .. } if why.contains(words)), "{error}");
        };
        check(&Outbound { text: " \n".into(), ..Outbound::default() }, "", "nothing in the message");
        let large = Outbound { media: vec![file("a")], ..Outbound::default() };
        check(&large, "mediaMaxMb:1", "the file has 2 MB, and channels.discord.mediaMaxMb allows 1");
        let poll_of = |options: usize| Poll { options: vec!["x".into(); options], ..Poll::default() };
        assert!(poll(&poll_of(11), None).is_err() && poll(&poll_of(0), None).is_err());
        assert_eq!(poll(&poll_of(2), None).expect("poll").poll.expect("poll").duration, 24);
    }

    #[test]
    fn file_names_have_no_directories() {
        for (given, expected) in [
            ("../../etc/passwd", "passwd"),
            ("a\\b.txt", "b.txt"),
            ("", "file-1.txt"),
            ("..", "file-1.txt"),
            ("x\"y", "xy"),
        ] {
            assert_eq!(file_name(&Media { data: Default::default(), ..file(given) }, 0), expected);
        }
    }

    #[test]
    fn nonces_fit_and_differ() {
        let (one, two) = (nonce().expect("random"), nonce().expect("random"));
        assert!(one.len() <= 25 && one != two);
    }
}

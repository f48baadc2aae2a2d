//! Providers against a model that speaks the real formats, well and badly.

use std::{sync::Arc, time::Duration};

use doubles::model::{Api as Spoken, Fault, Model as Double, Reply, Script, Stop as Stops, Wire};
use futures_util::StreamExt as _;
use openclaw_protocol::Secret;
use serde_json::json;

use super::{
    client::{Api, HttpProvider},
    endpoint::{Auth, KeySource},
    http::Http,
    testing::{conversation, endpoint, model, request, shown, tool},
    tuning::Tuning,
    *,
};
use crate::message::Message;

const APIS: [Api; 3] = [Api::Completions, Api::Responses, Api::Messages];

/// A provider of that API at the double, with a key.
fn provider(double: &Double, api: Api, change: impl FnOnce(&mut super::endpoint::Endpoint)) -> HttpProvider {
    let base = if api == Api::Messages { double.root_url() } else { double.url() };
    let mut endpoint = endpoint("double", &base);
    let key = Secret::new("sk-double-key");
    endpoint.auth = match api {
        Api::Messages => Auth::Header(reqwest::header::HeaderName::from_static("x-api-key"), key),
        _ => Auth::Bearer(key),
    };
    endpoint.key_source = KeySource::Env("DOUBLE_API_KEY".to_owned());
    change(&mut endpoint);
    HttpProvider {
        api,
        http: Http::default(),
        endpoint: Arc::new(endpoint),
        tunings: std::collections::BTreeMap::new(),
        tuning: Tuning::default(),
    }
}

fn ask(text: &str) -> Request {
    request(model("double/m"), vec![Message::user(text)])
}

/// All deltas, and how it ended.
async fn collect(provider: &HttpProvider, request: Request) -> (Vec<Delta>, Option<ProviderError>) {
    let mut stream = provider.stream(request);
    let (mut deltas, mut error) = (Vec::new(), None);
    while let Some(item) = stream.next().await {
        assert!(error.is_none(), "an error is the last word");
        match item {
            Ok(delta) => deltas.push(delta),
            Err(e) => error = Some(e),
        }
    }
    (deltas, error)
}

/// Without usage and the start, which the single tests of the formats cover.
fn said(deltas: &[Delta]) -> Vec<String> {
    let worth = |line: &String| !line.starts_with("usage") && !line.starts_with("started") && !line.starts_with("seal");
    shown(deltas).into_iter().filter(worth).collect()
}

#[tokio::test]
async fn all_apis_say_the_same() {
    let reply =
        Reply::think("hm").then_say("let me see").then_call("look", json!({"at": "é"})).then_call("look", json!({}));
    let double = Double::start(Script::always(reply.clone()));
    for api in APIS {
        for wire in [Wire::Plain, Wire::Crlf, Wire::Cr, Wire::Chatty, Wire::Chunks(1), Wire::Chunks(7), Wire::Whole] {
            for reply in [reply.clone(), reply.clone().by_character()] {
                double.play(Script::always(reply.wire(wire).usage(50, 9).cached(20)));
                let provider = provider(&double, api, |_| {});
                let mut asked = ask("what is it?");
                asked.tools = vec![tool()].into();
                let (deltas, error) = collect(&provider, asked).await;
                assert!(error.is_none(), "{api} {wire:?}: {error:?}");
                let lines = said(&deltas);
                let arguments: Vec<&str> =
                    lines.iter().filter_map(|line| line.strip_prefix("args ")).map(|l| &l[2..]).collect();
                assert_eq!(arguments, [r#"{"at":"é"}"#, "{}"], "{api} {wire:?}");
                assert_eq!((lines[0].as_str(), lines[1].as_str()), ("think hm", "text let me see"), "{api} {wire:?}");
                assert_eq!(lines.last().map(String::as_str), Some("stop ToolUse"));
                let usage = deltas
                    .iter()
                    .rev()
                    .find_map(|delta| if let Delta::Usage(usage) = delta { Some(*usage) } else { None });
                let expected = Usage { input: 30, output: 9, cache_read: 20, cache_write: 0 };
                assert_eq!(usage, Some(expected), "{api} {wire:?}");
            }
        }
    }
    let seen = double.last();
    assert_eq!(
        (seen.api, seen.key.as_deref(), &seen.tools[..]),
        (Spoken::Messages, Some("sk-double-key"), &["look".to_owned()][..])
    );
}

#[tokio::test]
async fn a_conversation_with_tools_and_images_is_understood() {
    for api in APIS {
        let double = Double::start(Script::choose(|ask| {
            Reply::say(format!(
                "{} results, {} images, {}",
                ask.tool_results.len(),
                ask.images,
                ask.tool_results[0].text
            ))
        }));
        let provider = provider(&double, api, |_| {});
        let mut asked = request(model("double/m"), conversation(None));
        asked.system = "Be kind.".to_owned();
        let (deltas, error) = collect(&provider, asked).await;
        assert!(error.is_none(), "{api}: {error:?}");
        assert_eq!(said(&deltas), ["text 1 results, 1 images, a picture", "stop End"], "{api}");
        assert_eq!(double.last().system, "Be kind.", "{api}");
    }
}

#[tokio::test]
async fn why_it_stops() {
    for api in APIS {
        for (reply, expected) in [
            (Reply::say("a"), Stop::End),
            (Reply::call("look", json!({})), Stop::ToolUse),
            (Reply::say("a").stops(Stops::Length), Stop::Length),
            (Reply::refuse("no"), Stop::Refusal),
        ] {
            let double = Double::start(Script::always(reply));
            let (deltas, error) = collect(&provider(&double, api, |_| {}), ask("a")).await;
            assert_eq!((deltas.last(), error.is_none()), (Some(&Delta::Stopped(expected)), true), "{api} {error:?}");
        }
    }
}

/// Every way to go wrong: the kind, whether the words before it were told, and words of the explanation.
#[tokio::test]
async fn misbehaviour() {
    use ErrorKind::{Auth, ContextLength, Garbage, Invalid, Network, RateLimit, Unavailable};
    let good = || Reply::say("Hello Ada").pieces(3);
    let rows: Vec<(Reply, Option<ErrorKind>, &[&str])> = vec![
        (Reply::rate_limited(7), Some(RateLimit), &["slow down", "HTTP 429"]),
        (Reply::overloaded(), Some(Unavailable), &["HTTP 529", "Overloaded"]),
        (Reply::server_error(), Some(Unavailable), &["HTTP 500"]),
        (Reply::too_long(), Some(ContextLength), &["too long"]),
        (Reply::error(401, "invalid_api_key", "Incorrect API key"), Some(Auth), &["DOUBLE_API_KEY"]),
        (good().fails(Fault::CutAfter(700)), Some(Unavailable), &["before its end"]),
        (good().fails(Fault::CutAfter(0)), Some(Network), &["broke the connection"]),
        (good().fails(Fault::CutBefore), Some(Network), &["broke the connection"]),
        (good().fails(Fault::SilentAfter(2)), Some(Network), &["sent nothing for", "timeoutSeconds"]),
        (good().fails(Fault::Hang), Some(Network), &["sent nothing for"]),
        (good().fails(Fault::GarbageAfter(2)), Some(Garbage), &["does not promise"]),
        (
            good().fails(Fault::ErrorAfter(3, "overloaded_error".to_owned(), "Overloaded".to_owned())),
            Some(Unavailable),
            &["Overloaded"],
        ),
        (
            good().fails(Fault::ErrorAfter(3, "rate_limit_exceeded".to_owned(), "try again in 3s".to_owned())),
            Some(RateLimit),
            &["try again"],
        ),
        (good().fails(Fault::HugeLine(9 << 20)), Some(Garbage), &["more than 8 MiB"]),
        (good().fails(Fault::Html), Some(Invalid), &["text/html", "baseUrl"]),
        (good().fails(Fault::NoStop), Some(Unavailable), &["before its end"]),
        (good(), None, &[]),
    ];
    for api in APIS {
        for (reply, kind, words) in &rows {
            let double = Double::start(Script::always(reply.clone()));
            let provider = provider(&double, api, |endpoint| endpoint.silence = Duration::from_millis(300));
            let (deltas, error) = collect(&provider, ask("hello")).await;
            assert_eq!(
                error.as_ref().map(|error| error.kind),
                *kind,
                "{api} {reply:?}: {error:?}\n{:?}",
                shown(&deltas)
            );
            let stopped = matches!(deltas.last(), Some(Delta::Stopped(_)));
            assert_eq!(stopped, kind.is_none(), "{api} {reply:?}: {:?}", shown(&deltas));
            let message = error.map(|error| error.message).unwrap_or_default();
            words
                .iter()
                .for_each(|word| assert!(message.contains(word), "{api} {reply:?}: {word:?} is not in {message}"));
            assert!(!message.contains("sk-double-key"), "{message}");
        }
    }
}

/// An answer that is complete stays one when its formal end is missing, garbled or late.
#[tokio::test]
async fn what_is_complete_needs_no_formal_end() {
    for fault in [Fault::NoEnd, Fault::LingerAfterEnd] {
        for api in [Api::Completions, Api::Messages] {
            let double = Double::start(Script::always(Reply::say("Hello").fails(fault.clone())));
            let provider = provider(&double, api, |_| {});
            let (deltas, error) = collect(&provider, ask("hello")).await;
            assert!(error.is_none(), "{api} {fault:?}: {error:?}");
            assert_eq!(said(&deltas), ["text Hello", "stop End"], "{api} {fault:?}");
        }
    }
}

/// What was said before a fault has been told: a person sees it, and the turn calls it void.
#[tokio::test]
async fn words_before_a_fault_are_told() {
    let error = Fault::ErrorAfter(3, "server_error".to_owned(), "boom".to_owned());
    let double = Double::start(Script::always(Reply::say("Hello Ada").pieces(2).wire(Wire::Whole).fails(error)));
    let (deltas, error) = collect(&provider(&double, Api::Completions, |_| {}), ask("hello")).await;
    assert_eq!(said(&deltas), ["text Hello Ada"]);
    assert_eq!(error.map(|error| error.kind), Some(ErrorKind::Unavailable));
}

#[tokio::test]
async fn dropping_the_stream_hangs_up() {
    let double =
        Double::start(Script::always(Reply::say("word ".repeat(2_000)).pieces(2_000).pace(Duration::from_millis(5))));
    let provider = provider(&double, Api::Completions, |_| {});
    let mut stream = provider.stream(ask("tell"));
    while !matches!(stream.next().await, Some(Ok(Delta::Text(_)))) {}
    drop(stream);
    tokio::task::spawn_blocking(move || double.wait_until("the client to hang up", |double| double.abandoned() == 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_call_has_a_limit_in_all() {
    let slow = Reply::say("x".repeat(1_000)).by_character().pace(Duration::from_millis(10));
    let double = Double::start(Script::always(slow));
    let provider = provider(&double, Api::Completions, |endpoint| endpoint.total = Some(Duration::from_millis(300)));
    let (deltas, error) = collect(&provider, ask("tell")).await;
    let error = error.expect("a timeout");
    assert!(error.kind == ErrorKind::Network && error.message.contains("not done after"), "{error}");
    assert!(!deltas.is_empty());
}

#[tokio::test]
async fn nobody_there_is_explained() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let provider = HttpProvider {
        api: Api::Completions,
        http: Http::default(),
        endpoint: Arc::new(endpoint("ollama", &base)),
        tunings: std::collections::BTreeMap::new(),
        tuning: Tuning::default(),
    };
    let (_, error) = collect(&provider, ask("hello")).await;
    let error = error.expect("nobody is there");
    assert_eq!(error.kind, ErrorKind::Network);
    for word in ["ollama", &base, "cannot be reached", "refused", "Is the model server running?"] {
        assert!(error.message.contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn a_pause_that_is_asked_for_arrives() {
    let double = Double::start(Script::always(Reply::rate_limited(7)));
    let (_, error) = collect(&provider(&double, Api::Messages, |_| {}), ask("hello")).await;
    assert_eq!(error.and_then(|error| error.retry_after), Some(Duration::from_secs(7)));
}

/// P-90: a redirect is not followed, so that neither key nor conversation goes elsewhere.
#[tokio::test]
async fn p_90_redirects_are_not_followed() {
    let elsewhere = Double::echo();
    let to = format!("{}/chat/completions?key=1", elsewhere.url());
    let double = Double::start(Script::always(Reply::default().fails(Fault::Redirect(to))));
    let (_, error) = collect(&provider(&double, Api::Completions, |_| {}), ask("hello")).await;
    let error = error.expect("a redirect is an error");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("redirect") && error.message.contains(elsewhere.root_url().as_str()), "{error}");
    assert!(!error.message.contains("key=1"), "{error}");
    assert_eq!(elsewhere.asks().len(), 0);
}

#[tokio::test]
async fn a_key_with_a_line_break_is_not_sent() {
    let double = Double::echo();
    let provider = provider(&double, Api::Completions, |endpoint| endpoint.auth = Auth::Bearer(Secret::new("sk\nabc")));
    let (_, error) = collect(&provider, ask("hello")).await;
    assert_eq!(error.map(|error| error.kind), Some(ErrorKind::Auth));
    assert_eq!(double.asks().len(), 0);
}

/// Anthropic's thoughts return with their signature, OpenAI's as their encrypted item.
#[tokio::test]
async fn sealed_thoughts_return() {
    for (api, sealed) in [(Api::Messages, "EqQB-hm"), (Api::Responses, "hm")] {
        let double = Double::start(Script::always(Reply::think("hm").then_say("ok")));
        let provider = provider(&double, api, |_| {});
        let (deltas, _) = collect(&provider, ask("a")).await;
        let seal =
            deltas.iter().find_map(|delta| if let Delta::Signature(seal) = delta { Some(seal.clone()) } else { None });
        // The imitated address gets no `include`, so that there is nothing encrypted to return.
        let Some(seal) = seal else {
            assert_eq!(api, Api::Responses);
            continue;
        };
        let asked = request(model("double/m"), conversation(Some(seal)));
        collect(&provider, asked).await;
        assert!(double.last().body.to_string().contains(sealed), "{api}");
    }
}

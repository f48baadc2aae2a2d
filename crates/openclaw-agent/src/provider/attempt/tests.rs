use std::{collections::VecDeque, sync::Mutex};

use futures_util::stream;

use super::*;
use crate::provider::{Model, Provider, Stop};

/// Answers with the next script: deltas or an error.
#[derive(Debug)]
struct Scripted(Mutex<VecDeque<Vec<Result<Delta, ProviderError>>>>);

impl Provider for Scripted {
    fn stream(&self, _: Request) -> BoxStream<'static, Result<Delta, ProviderError>> {
        let next = self.0.lock().unwrap().pop_front().expect("asked more often than scripted");
        stream::iter(next).boxed()
    }
}

fn error(kind: ErrorKind, retry_after: Option<u64>) -> Result<Delta, ProviderError> {
    let message = format!("{kind:?}");
    Err(ProviderError { kind, message, retry_after: retry_after.map(Duration::from_secs) })
}

fn fails(kind: ErrorKind) -> Vec<Result<Delta, ProviderError>> {
    vec![error(kind, None)]
}

fn says(text: &str) -> Vec<Result<Delta, ProviderError>> {
    vec![Ok(Delta::Text(text.to_owned())), Ok(Delta::Stopped(Stop::End))]
}

fn candidate(name: &str, script: Vec<Vec<Result<Delta, ProviderError>>>) -> Candidate {
    let reference = ModelRef::parse(name).unwrap();
    let model = Model {
        name: name.to_owned(),
        context_window: 1,
        max_tokens: None,
        reasoning: false,
        images: false,
        price: None,
        reference,
    };
    Candidate { model: Arc::new(model), provider: Arc::new(Scripted(Mutex::new(script.into()))) }
}

fn ask() -> Ask {
    Ask {
        system: String::new(),
        messages: Arc::default(),
        tools: Arc::default(),
        thinking: Thinking::Off,
        max_tokens: None,
    }
}

/// `?model/n` asked, text, `.` stopped, `~s` a retry after that many seconds, `>model` a fallback, `!text` the last error.
async fn show(attempts: &mut Attempts) -> String {
    let mut asking = attempts.ask(ask());
    let mut seen = Vec::new();
    while let Some(step) = asking.next().await {
        seen.push(match step {
            Ok(Step::Asking { model, attempt }) => format!("?{}{attempt}", model.model),
            Ok(Step::Delta(Delta::Text(text))) => text,
            Ok(Step::Delta(Delta::Stopped(_))) => ".".to_owned(),
            Ok(Step::Delta(other)) => format!("{other:?}"),
            Ok(Step::Discarded { next: Next::Retry { after }, .. }) => format!("~{:.0}", after.as_secs_f64()),
            Ok(Step::Discarded { next: Next::Fallback(model), .. }) => format!(">{}", model.model),
            Err(error) => format!("!{}", error.message),
        });
    }
    seen.join(" ")
}

/// Without jitter: pauses of 1, 2, 4 s.
fn patience() -> Patience {
    Patience { retries: 3, rate_limit_retries: 4, ..Patience::default() }
}

/// Rounds ±25 % to the seconds they stand for.
fn steady(text: &str) -> String {
    let word = |word: &str| match word.strip_prefix('~').and_then(|n| n.parse::<f64>().ok()) {
        Some(n) if n < 100.0 => format!(
            "~{}",
            [1.0, 2.0, 4.0, 8.0, 16.0, 30.0].into_iter().find(|base| (n / base - 1.0).abs() < 0.34).unwrap_or(n)
        ),
        _ => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn what_happens_after_which_failure() {
    use ErrorKind::{Auth, Cancelled, ContextLength, Garbage, Invalid, Network, RateLimit, Unavailable};
    let check = async |a: Vec<Vec<_>>, b: Option<Vec<Vec<_>>>, expected: &str| {
        let candidates = [Some(candidate("p/a", a)), b.map(|b| candidate("q/b", b))].into_iter().flatten().collect();
        let mut attempts = Attempts::new(candidates, patience());
        assert_eq!(steady(&show(&mut attempts).await), expected);
    };
    check(vec![says("hi")], None, "?a1 hi .").await;
    for kind in [Network, Unavailable, Garbage] {
        check(vec![fails(kind), fails(kind), says("hi")], None, "?a1 ~1 ?a2 ~2 ?a3 hi .").await;
    }
    let all = vec![fails(Unavailable); 4];
    check(all, None, "?a1 ~1 ?a2 ~2 ?a3 ~4 ?a4 !Unavailable").await;
    let all = vec![fails(RateLimit); 5];
    check(all, None, "?a1 ~1 ?a2 ~2 ?a3 ~4 ?a4 ~8 ?a5 !RateLimit").await;
    // Never the same again: another may.
    for kind in [Auth, Invalid] {
        check(vec![fails(kind)], None, &format!("?a1 !{kind:?}")).await;
        check(vec![fails(kind)], Some(vec![says("hi")]), "?a1 >b ?b2 hi .").await;
    }
    // Nobody else would do better.
    for kind in [ContextLength, Cancelled] {
        check(vec![fails(kind)], Some(vec![]), &format!("?a1 !{kind:?}")).await;
    }
    // With somebody else to ask, only two retries.
    let twice = vec![fails(Unavailable); 3];
    check(twice.clone(), Some(vec![says("hi")]), "?a1 ~1 ?a2 ~2 ?a3 >b ?b4 hi .").await;
    check(
        twice,
        Some(vec![fails(Auth)]),
        "?a1 ~1 ?a2 ~2 ?a3 >b ?b4 !None of 2 models has answered. p/a: Unavailable | q/b: Auth",
    )
    .await;
    // Half an answer is void.
    let half = vec![Ok(Delta::Text("ha".to_owned())), error(Unavailable, None)];
    check(vec![half.clone(), says("hi")], None, "?a1 ha ~1 ?a2 hi .").await;
    let unended = vec![Ok(Delta::Text("ha".to_owned()))];
    check(vec![unended, says("hi")], None, "?a1 ha ~1 ?a2 hi .").await;
    // What the provider asks for is waited, or too much.
    check(vec![vec![error(RateLimit, Some(60))], says("hi")], None, "?a1 ~60 ?a2 hi .").await;
    check(vec![vec![error(RateLimit, Some(120))], says("hi")], None, "?a1 ~120 ?a2 hi .").await;
    check(vec![vec![error(RateLimit, Some(120))]], Some(vec![says("hi")]), "?a1 >b ?b2 hi .").await;
    check(vec![vec![error(RateLimit, Some(3_600))]], None, "?a1 !RateLimit").await;
}

#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_an_error() {
    let mut attempts = Attempts::new(Vec::new(), Patience::none());
    assert!(show(&mut attempts).await.starts_with("!there is no model"));
}

/// A fallback answers the rest of the turn, and retries are counted over all rounds.
#[tokio::test(start_paused = true)]
async fn what_a_round_learns_stays() {
    use ErrorKind::{Auth, Unavailable};
    let a = candidate("p/a", vec![fails(Auth)]);
    let b = candidate("q/b", vec![says("one"), fails(Unavailable), says("two"), says("three")]);
    let mut attempts = Attempts::new(vec![a, b], patience());
    assert_eq!(show(&mut attempts).await, "?a1 >b ?b2 one .");
    assert_eq!(steady(&show(&mut attempts).await), "?b1 ~1 ?b2 two .");
    assert_eq!(attempts.current().unwrap().model.reference.model, "b");
    assert_eq!(show(&mut attempts).await, "?b1 three .");

    let script = (0..4).flat_map(|_| [fails(Unavailable), says("hi")]).collect();
    let mut attempts = Attempts::new(vec![candidate("p/a", script)], patience());
    for pause in ["~1", "~2", "~4"] {
        assert_eq!(steady(&show(&mut attempts).await), format!("?a1 {pause} ?a2 hi ."));
    }
    assert_eq!(show(&mut attempts).await, "?a1 !Unavailable");
}

/// 90 s after the first failure nobody is asked again, unless an answer was complete in between.
#[tokio::test(start_paused = true)]
async fn an_outage_ends_the_patience() {
    let long = Patience { retries: 100, ..Patience::default() };
    let mut attempts = Attempts::new(vec![candidate("p/a", vec![fails(ErrorKind::Network); 100])], long);
    let began = Instant::now();
    let seen = show(&mut attempts).await;
    assert!(seen.ends_with("!Network"), "{seen}");
    assert!(began.elapsed() <= Duration::from_secs(90), "{:?}", began.elapsed());
    assert!(seen.matches('~').count() >= 5, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_can_go_on() {
    let mut attempts = Attempts::new(vec![candidate("p/a", vec![fails(ErrorKind::Network), says("hi")])], patience());
    let mut asking = attempts.ask(ask());
    assert!(matches!(asking.next().await, Some(Ok(Step::Asking { attempt: 1, .. }))));
    assert!(matches!(asking.next().await, Some(Ok(Step::Discarded { .. }))));
    let soon = tokio::time::timeout(Duration::from_millis(100), asking.next()).await;
    assert!(soon.is_err(), "it waits");
    assert!(matches!(asking.next().await, Some(Ok(Step::Asking { attempt: 2, .. }))));
}

#[test]
fn pauses_double_spread_and_end_at_the_ceiling() {
    let patience = Patience::default();
    let check = |retries: u32, random: f64, millis: u128| {
        assert_eq!(backoff(patience, retries, random).as_millis(), millis, "{retries} {random}");
    };
    check(0, 0.5, 1_000);
    check(0, 0.0, 750);
    check(1, 0.5, 2_000);
    check(4, 0.5, 16_000);
    check(5, 0.5, 30_000);
    check(40, 0.0, 22_500);
    assert!((0.0..1.0).contains(&random()));
}

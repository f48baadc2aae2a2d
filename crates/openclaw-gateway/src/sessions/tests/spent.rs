use jiff::Timestamp;
use openclaw_agent::message::{Part, ToolCall};
use openclaw_agent::usage::{Price, Usage};
use serde_json::json;

use super::{super::*, Place, answered, key, user};
use crate::sessions::usage::{Asked, Period};

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a time").as_millisecond()
}

fn period(first: &str, last: &str, offset: &str) -> Period {
    let asked =
        Asked { start: Some(first), end: Some(last), mode: Some("specific"), offset: Some(offset), ..Asked::default() };
    Period::of(asked, Timestamp::now()).expect("a period")
}

fn answer(price: Option<Price>, when: &str) -> NewMessage {
    let call = ToolCall { id: "c".into(), name: "fetch".into(), arguments: json!({}) };
    let usage = Usage { input: 1_000_000, output: 500_000, cache_read: 100, cache_write: 0 };
    NewMessage::assistant(&[Part::ToolCall(call)], &Answered { usage, price, ..answered() }).at(at(when))
}

#[tokio::test]
async fn figures_are_added_up_by_day_in_the_zone_that_is_asked_for() {
    let place = Place::new();
    let (one, two) = (key("one"), key("agent:work:two"));
    let price = Price { input: 2.0, output: 10.0, cache_read: 0.0, cache_write: 0.0 };
    place.say(&one, [user("x").at(at("2026-11-20T23:50:00Z")), answer(Some(price), "2026-11-20T23:55:00Z")]).await;
    place.say(&two, [answer(None, "2026-11-21T00:10:00Z")]).await;
    let place = place.again();
    let days = async |period: &Period, agent: Option<&str>| {
        let cost = place.sessions.cost(period, agent, 0).await.expect("reads");
        cost.daily.iter().map(|day| (day.date.clone(), day.totals.input, day.totals.total_cost)).collect::<Vec<_>>()
    };
    let day = |date: &str, input: u64, cost: f64| (date.to_owned(), input, cost);
    assert_eq!(
        days(&period("2026-11-20", "2026-11-21", "UTC+0"), None).await,
        [day("2026-11-20", 1_000_000, 7.0), day("2026-11-21", 1_000_000, 0.0)]
    );
    assert_eq!(days(&period("2026-11-20", "2026-11-22", "UTC+5:30"), None).await, [day("2026-11-21", 2_000_000, 7.0)]);
    assert_eq!(days(&period("2026-11-20", "2026-11-22", "UTC-1"), None).await, [day("2026-11-20", 2_000_000, 7.0)]);
    assert_eq!(days(&period("2026-11-21", "2026-11-21", "UTC+0"), None).await.len(), 1);
    assert_eq!(
        days(&period("2026-11-20", "2026-11-21", "UTC+0"), Some("work")).await,
        [day("2026-11-21", 1_000_000, 0.0)]
    );
    let report =
        place.sessions.usage(&period("2026-11-20", "2026-11-21", "UTC+0"), None, None, None, 0).await.expect("reads");
    assert_eq!(report["totals"]["totalTokens"], 3_000_200);
    assert_eq!(report["totals"]["inputCost"], 2.0);
    assert_eq!(report["totals"]["missingCostEntries"], 1);
    let messages = json!({"total": 3, "user": 1, "assistant": 2, "toolCalls": 2, "toolResults": 0, "errors": 0});
    assert_eq!(report["aggregates"]["messages"], messages);
    assert_eq!(
        report["aggregates"]["tools"],
        json!({"totalCalls": 2, "uniqueTools": 1, "tools": [{"name": "fetch", "count": 2}]})
    );
    assert_eq!(report["aggregates"]["byModel"][0]["count"], 2);
    let agents = report["aggregates"]["byAgent"].as_array().expect("a list").iter();
    assert_eq!(agents.map(|agent| agent["agentId"].clone()).collect::<Vec<_>>(), [json!("main"), json!("work")]);
    let sessions = report["sessions"].as_array().expect("a list");
    let row = sessions.iter().find(|row| row["key"] == "agent:main:one").expect("listed");
    assert_eq!(row["usage"]["messageCounts"]["user"], 1);
    assert_eq!(row["usage"]["dailyBreakdown"], json!([{"date": "2026-11-20", "tokens": 1_500_100, "cost": 7.0}]));
    assert_eq!((&report["startDate"], &report["endDate"]), (&json!("2026-11-20"), &json!("2026-11-21")));
}

#[test]
fn a_period_is_days_of_a_zone() {
    let now: Timestamp = "2026-11-21T00:30:00Z".parse().expect("a time");
    let check = |asked: Asked<'_>, expected: Result<(&str, &str), &str>| {
        let period = Period::of(asked, now);
        match (period, expected) {
            (Ok(period), Ok((first, last))) => {
                assert_eq!(
                    (period.first.to_string(), period.last.to_string()),
                    (first.into(), last.into()),
                    "{asked:?}"
                );
            }
            (Err(error), Err(expected)) => assert!(error.message.contains(expected), "{asked:?}: {}", error.message),
            (got, expected) => panic!("{asked:?}: {got:?}, expected {expected:?}"),
        }
    };
    let utc = Asked { mode: Some("utc"), ..Asked::default() };
    // rpc-sweep.jsonl: thirty days, today included.
    check(utc, Ok(("2026-10-23", "2026-11-21")));
    check(Asked { range: Some("7d"), ..utc }, Ok(("2026-11-15", "2026-11-21")));
    check(Asked { days: Some(1), ..utc }, Ok(("2026-11-21", "2026-11-21")));
    check(Asked { days: Some(1), mode: None, offset: Some("UTC-1"), ..utc }, Ok(("2026-11-20", "2026-11-20")));
    check(Asked { range: Some("8d"), ..utc }, Err("range must be"));
    check(Asked { start: Some("2026-13-01"), ..utc }, Err("startDate must be a date"));
    check(Asked { start: Some("2026-12-01"), ..utc }, Err("is after endDate"));
    check(Asked { mode: Some("specific"), zone: Some("Mars/Base"), ..Asked::default() }, Err("timeZone"));
    check(Asked { mode: Some("specific"), offset: Some("UTC+99"), ..Asked::default() }, Err("utcOffset"));
    check(Asked { mode: Some("lunar"), ..Asked::default() }, Err("mode must be"));
}

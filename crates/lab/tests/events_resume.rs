//! `events.resume`: seen, then missed, then heard is everything once, in both protocol versions.

use lab::{
    client::{Client, Login},
    sandbox::{Sandbox, Setup},
};
use serde_json::{Value, json};

const READ: &[&str] = &["operator.read"];

/// Makes something happen that everybody with read hears of, and nothing else does.
fn happen(g: &Sandbox, text: &str) {
    g.admin().ok("system-event", json!({"text": format!("Node: {text}"), "instanceId": text}));
}

/// Sees the events up to the one about `text`.
fn hear(client: &mut Client, text: &str) -> Vec<Value> {
    let mut heard = Vec::new();
    loop {
        while let Some(event) = client.events.pop_front() {
            let last = event["payload"].to_string().contains(&format!("\"instanceId\":\"{text}\""));
            heard.push(event);
            if last {
                return heard;
            }
        }
        assert!(client.read_one(), "the connection ended before {text}");
    }
}

/// An event without its number, which differs between connections.
fn content(event: &Value) -> Value {
    let mut event = event.clone();
    event.as_object_mut().expect("an object").remove("seq");
    event.as_object_mut().expect("an object").remove("type");
    event
}

fn conn_id(client: &Client) -> Value {
    client.hello["server"]["connId"].clone()
}

#[test]
fn what_was_missed_comes_once_and_in_order() {
    for protocol in [3, 4] {
        let g = Setup::new().start();
        let device = g.paired(READ);
        let login = || device.login().protocol(protocol, protocol);
        let mut witness = login().hello();
        happen(&g, "before");
        hear(&mut witness, "before");

        let mut lost = login().hello();
        happen(&g, "one");
        let seen = hear(&mut lost, "one");
        let all = hear(&mut witness, "one");
        // Its own hello is nothing it hears; the witness may have heard presence of it.
        let from = all.len() - seen.len();
        assert_eq!(seen.iter().map(content).collect::<Vec<_>>(), all[from..].iter().map(content).collect::<Vec<_>>());
        let (lost_id, last) = (conn_id(&lost), seen.last().expect("one")["seq"].clone());
        happen(&g, "sent, and never read");
        drop(lost);
        happen(&g, "while away");
        let mut back = login().hello();
        happen(&g, "heard again");

        let resumed = back.ok("events.resume", json!({"connId": lost_id, "seq": last}));
        assert_eq!(resumed["complete"], true, "protocol {protocol}: {resumed}");
        let missed = resumed["events"].as_array().expect("a list").clone();
        let heard = hear(&mut back, "heard again");
        let of_both: Vec<Value> = missed.iter().chain(&heard).map(content).collect();
        let witnessed: Vec<Value> = hear(&mut witness, "heard again").iter().map(content).collect();
        assert_eq!(of_both, witnessed, "protocol {protocol}");
        // Each has the number it would have had, so that the next question can go on from there.
        let numbers: Vec<u64> = missed.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
        assert!(numbers.first() > last.as_u64().as_ref() && numbers.is_sorted(), "{numbers:?}");
        let rest = back.ok("events.resume", json!({"connId": lost_id, "seq": numbers.last()}));
        assert_eq!(rest, json!({"complete": true, "events": []}));
    }
}

#[test]
fn strangers_and_old_questions_get_no_events() {
    let mut g = Setup::new().start();
    let (device, other) = (g.paired(READ), g.paired(READ));
    let lost = device.hello();
    let id = conn_id(&lost);
    drop(lost);
    happen(&g, "missed");
    let nothing = json!({"complete": false, "events": []});
    let ask = |client: &mut Client, id: &Value, seq: u64| client.ok("events.resume", json!({"connId": id, "seq": seq}));
    assert_eq!(ask(&mut other.hello(), &id, 0), nothing, "another device");
    assert_eq!(ask(&mut g.operator(READ), &id, 0), nothing, "the shared secret alone");
    let mut back = device.hello();
    assert_eq!(ask(&mut back, &json!("no such connection"), 0), nothing);
    assert_eq!(ask(&mut back, &id, 1_000_000), nothing, "it cannot have seen that");
    assert_eq!(ask(&mut back, &id, 0)["complete"], true);
    // With fewer rights less is told.
    let fewer = Login::at(&g.address()).scopes(&[]).device_token(&device.token).device(&device.key);
    assert_eq!(ask(&mut fewer.hello(), &id, 0), json!({"complete": true, "events": []}));
    for bad in [json!({}), json!({"connId": id}), json!({"connId": 7, "seq": 0}), json!({"connId": id, "seq": -1})] {
        assert_eq!(back.err("events.resume", bad.clone())["code"], "INVALID_REQUEST", "{bad}");
    }
    // It is not for polling: thirty a minute.
    let limited = (0..40).find_map(|_| back.call("events.resume", json!({"connId": id, "seq": 0})).err());
    assert_eq!(limited.expect("a limit")["code"], "UNAVAILABLE");
    // Nothing survives a restart, and that is said.
    g.stop();
    g.start();
    assert_eq!(ask(&mut device.login_at(&g.address()).hello(), &id, 0), nothing);
}

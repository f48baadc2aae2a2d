//! Configs, askers, and the tools that are left.

use openclaw_config::{
    env::Env,
    paths::{Paths, Profile},
};

use super::*;

fn document(text: &str) -> Document {
    let env = Env::from_pairs([("HOME", "/home/me")]);
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    Document::from_text(text, &paths, &env).unwrap()
}

fn model() -> ModelRef {
    ModelRef { provider: "anthropic".to_owned(), model: "claude".to_owned() }
}

const TOOLS: [Candidate<'static>; 11] = [
    tool("read", Effects::None),
    tool("write", Effects::Some),
    tool("edit", Effects::Some),
    tool("list", Effects::None),
    tool("exec", Effects::Some),
    tool("nodes", Effects::Some),
    tool("message", Effects::Some),
    tool("sessions", Effects::None),
    tool("gateway", Effects::None),
    tool("web_fetch", Effects::None),
    Candidate { name: "docs__search", effects: Effects::None, plugin: true },
];

const fn tool(name: &'static str, effects: Effects) -> Candidate<'static> {
    Candidate { name, effects, plugin: false }
}

const ALL: &str = "read write edit list exec nodes message sessions gateway web_fetch docs__search";

fn left(config: &str, asker: &Asker<'_>) -> String {
    let selection = decide(&document(config), asker, &TOOLS);
    let kept: Vec<&str> =
        TOOLS.iter().zip(&selection.allowed).filter(|(_, kept)| **kept).map(|(tool, _)| tool.name).collect();
    assert_eq!(kept.len() + selection.refused.len(), TOOLS.len(), "{config}");
    kept.join(" ")
}

#[test]
fn lists_profiles_and_groups() {
    let model = model();
    let owner = Asker::local("main", &model, Trust::Owner);
    let check = |config: &str, expected: &str| assert_eq!(left(config, &owner), expected, "{config}");
    check("{}", ALL);
    check("{tools:{profile:'full'}}", ALL);
    check("{tools:{profile:'coding'}}", "read write edit list exec sessions web_fetch docs__search");
    check("{tools:{profile:'messaging'}}", "message sessions docs__search");
    check("{tools:{profile:'minimal'}}", "");
    check("{tools:{profile:'no-such'}}", "");
    check("{tools:{profile:'minimal',alsoAllow:['gateway']}}", "gateway");
    check("{tools:{profile:'messaging',alsoAllow:['group:nodes']}}", "nodes message sessions docs__search");
    check("{tools:{profile:'coding',deny:['bundle-mcp','group:runtime']}}", "read write edit list sessions web_fetch");
    check("{tools:{allow:['group:fs']}}", "read write edit list");
    check("{tools:{allow:['READ','Web_*']}}", "read web_fetch");
    check("{tools:{allow:['fetch','bash']}}", "exec web_fetch");
    check(
        "{tools:{allow:['*'],deny:['write','edit']}}",
        "read list exec nodes message sessions gateway web_fetch docs__search",
    );
    check("{tools:{allow:['read'],deny:['read']}}", "");
    check("{tools:{allow:[]}}", ALL);
    check("{tools:{deny:['*']}}", "");
    check("{tools:{deny:['docs__*']}}", "read write edit list exec nodes message sessions gateway web_fetch");
    check("{tools:{allow:['group:plugins']}}", "docs__search");
    check("{tools:{allow:['group:openclaw']}}", "nodes message sessions gateway web_fetch");
    check("{tools:{deny:['group:no-such','nothing']}}", ALL);
}

#[test]
fn every_place_only_takes_away() {
    let model = model();
    let owner = Asker::local("work", &model, Trust::Owner);
    let check = |config: &str, expected: &str| assert_eq!(left(config, &owner), expected, "{config}");
    // The agent.
    check("{tools:{allow:['read','exec']},agents:{entries:{work:{tools:{allow:['exec','write']}}}}}", "exec");
    check("{tools:{deny:['exec']},agents:{entries:{work:{tools:{allow:['exec','read']}}}}}", "read");
    check(
        "{agents:{list:[{id:'other'},{id:'work',tools:{deny:['group:fs']}}]}}",
        "exec nodes message sessions gateway web_fetch docs__search",
    );
    check("{agents:{entries:{other:{tools:{deny:['*']}}}}}", ALL);
    // Its profile instead of the global one, with the nearest alsoAllow.
    check(
        "{tools:{profile:'minimal',alsoAllow:['read']},agents:{entries:{work:{tools:{profile:'messaging'}}}}}",
        "read message sessions docs__search",
    );
    check(
        "{tools:{profile:'minimal',alsoAllow:['read']},agents:{entries:{work:{tools:{alsoAllow:['exec']}}}}}",
        "exec",
    );
    // The provider and the model.
    check("{tools:{byProvider:{Anthropic:{allow:['read','list']}}}}", "read list");
    check("{tools:{byProvider:{anthropic:{allow:['read']},'anthropic/claude':{allow:['exec']}}}}", "exec");
    check("{tools:{byProvider:{openai:{deny:['*']}}}}", ALL);
    check("{tools:{profile:'coding',byProvider:{anthropic:{profile:'messaging'}}}}", "sessions docs__search");
    check("{tools:{profile:'coding',byProvider:{anthropic:{profile:'minimal',alsoAllow:['read','nodes']}}}}", "read");
    check(
        "{agents:{entries:{work:{tools:{byProvider:{anthropic:{deny:['exec','docs__*']}}}}}}}",
        "read write edit list nodes message sessions gateway web_fetch",
    );
}

#[test]
fn chats_and_senders() {
    let model = model();
    let config = "{channels:{telegram:{groups:{
        '*':{tools:{deny:['exec']}},
        '-100':{tools:{deny:['exec','read','write']},toolsBySender:{'id:7':{allow:['read']},'username:@Ann':{deny:[]}}},
        '-200':{},
      },accounts:{second:{groups:{'-100':{tools:{allow:['web_fetch']}}}}}},
      discord:{guilds:{g1:{tools:{deny:['nodes']},channels:{c1:{tools:{allow:['list']}}}}}}}}";
    let without = |names: &[&str]| ALL.split(' ').filter(|name| !names.contains(name)).collect::<Vec<_>>().join(" ");
    let in_group = |group: &'static str, change: fn(&mut Asker<'static>)| {
        let model = Box::leak(Box::new(model.clone()));
        let mut asker = Asker::local("main", model, Trust::Owner);
        (asker.channel, asker.group) = (Some("telegram"), Some(group));
        change(&mut asker);
        left(config, &asker)
    };
    assert_eq!(in_group("-100", |_| {}), without(&["exec", "read", "write"]));
    assert_eq!(in_group("-100", |asker| asker.id = Some("7")), "read");
    assert_eq!(in_group("-100", |asker| asker.username = Some("ann")), ALL);
    assert_eq!(in_group("-100", |asker| asker.account = Some("second")), "web_fetch");
    assert_eq!(in_group("-200", |_| {}), without(&["exec"]));
    assert_eq!(in_group("-300", |_| {}), without(&["exec"]));
    assert_eq!(in_group("-100", |asker| asker.group = None), ALL);
    assert_eq!(in_group("c1", |asker| (asker.channel, asker.guild) = (Some("discord"), Some("g1"))), "list");
    assert_eq!(
        in_group("c2", |asker| (asker.channel, asker.guild) = (Some("discord"), Some("g1"))),
        without(&["nodes"])
    );

    let config = "{tools:{toolsBySender:{'channel:telegram:7':{allow:['read','write']},'id:7':{allow:['exec']},'8':{allow:['list']},
        'e164:+49':{allow:['edit']},'name:Bob':{allow:['nodes']},'*':{deny:['group:fs','exec']}}},
        agents:{entries:{free:{tools:{toolsBySender:{'id:7':{}}}}}}}";
    let sender = |change: fn(&mut Asker<'static>)| {
        let model = Box::leak(Box::new(model.clone()));
        let mut asker = Asker::local("main", model, Trust::Owner);
        asker.channel = Some("telegram");
        change(&mut asker);
        left(config, &asker)
    };
    assert_eq!(sender(|asker| asker.id = Some("7")), "read write");
    assert_eq!(sender(|asker| (asker.id, asker.channel) = (Some("7"), Some("discord"))), "exec");
    assert_eq!(sender(|asker| asker.id = Some("8")), "list");
    assert_eq!(sender(|asker| (asker.id, asker.e164) = (Some("9"), Some("+49"))), "edit");
    assert_eq!(sender(|asker| asker.name = Some("bob")), "nodes");
    assert_eq!(sender(|asker| asker.id = Some("9")), without(&["read", "write", "edit", "list", "exec"]));
    assert_eq!(sender(|asker| (asker.id, asker.agent) = (Some("7"), "free")), ALL);
}

#[test]
fn a_stranger_gets_nothing_with_effects_whatever_the_config() {
    let model = model();
    let check = |config: &str, trust: Trust, expected: &str| {
        let mut asker = Asker::local("main", &model, trust);
        (asker.channel, asker.group, asker.id) = (Some("telegram"), Some("-100"), Some("7"));
        assert_eq!(left(config, &asker), expected, "{config}");
    };
    let all = "{channels:{telegram:{groups:{'-100':{tools:{allow:['*']}}}}}}";
    check("{}", Trust::Stranger, "web_fetch");
    check("{tools:{profile:'full',allow:['*']}}", Trust::Stranger, "web_fetch");
    check("{tools:{deny:['web_fetch']}}", Trust::Stranger, "");
    check(all, Trust::Stranger, "read list sessions web_fetch docs__search");
    check(
        "{channels:{telegram:{groups:{'-100':{tools:{allow:['exec','write','nodes','message','read','gateway']}}}}}}",
        Trust::Stranger,
        "read",
    );
    check("{tools:{toolsBySender:{'id:7':{alsoAllow:['docs__*']}}}}", Trust::Stranger, "web_fetch docs__search");
    check("{}", Trust::Operator, "read write edit list exec nodes message sessions web_fetch docs__search");
    check(all, Trust::Owner, ALL);
}

#[test]
fn a_list_that_leaves_nothing_is_a_mistake_that_is_told() {
    let model = model();
    let owner = Asker::local("main", &model, Trust::Owner);
    let starved = |config: &str| decide(&document(config), &owner, &TOOLS).starved;
    assert_eq!(
        starved("{agents:{entries:{main:{tools:{allow:['query_db']}}}}}").as_deref(),
        Some("agents.entries.main.tools")
    );
    assert_eq!(starved("{tools:{allow:['read'],deny:['read']}}").as_deref(), Some("tools"));
    assert_eq!(starved("{tools:{deny:['*']}}"), None);
    assert_eq!(starved("{tools:{allow:['read']}}"), None);
    // A stranger without tools is no mistake.
    let stranger = Asker::local("main", &model, Trust::Stranger);
    assert_eq!(decide(&document("{tools:{deny:['web_fetch']}}"), &stranger, &TOOLS).starved, None);
    let refused = decide(&document("{tools:{deny:['exec']}}"), &owner, &TOOLS).refused;
    assert_eq!(refused, [("exec".to_owned(), "tools (deny)".to_owned())]);
}

#[test]
fn a_servers_tool_does_not_become_ours_by_its_name() {
    let model = model();
    let owner = Asker::local("main", &model, Trust::Owner);
    let tools = [Candidate { name: "web_fetch", effects: Effects::None, plugin: true }];
    assert_eq!(decide(&document("{tools:{allow:['group:web']}}"), &owner, &tools).allowed, [false]);
    let stranger = Asker::local("main", &model, Trust::Stranger);
    assert_eq!(decide(&document("{}"), &stranger, &tools).allowed, [false]);
}

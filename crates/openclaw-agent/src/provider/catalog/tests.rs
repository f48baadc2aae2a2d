use doubles::model::{Model as Double, Reply, Script};
use futures_util::StreamExt as _;
use openclaw_config::Profile;

use super::*;
use crate::{
    message::Message,
    provider::{Delta, Request},
    turn::Candidate,
    usage::{Price, Usage},
};

/// A catalog of a config text and an environment, in a state directory of its own.
fn read(config: &str, env: &[(&str, &str)]) -> (Catalog, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap().to_owned();
    let env = Env::from_pairs(env.iter().copied().chain([("HOME", home.as_str())]));
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    let doc = Document::from_text(config, &paths, &env).unwrap();
    let (catalog, problems) = Catalog::read(&doc, &env, &paths);
    (catalog, problems.iter().map(ToString::to_string).collect())
}

fn reference(text: &str) -> ModelRef {
    ModelRef::parse(text).unwrap()
}

fn names(candidates: Result<Vec<Candidate>, NoModel>) -> Vec<String> {
    candidates.unwrap().iter().map(|candidate| candidate.model.reference.to_string()).collect()
}

const LOCAL: &str = r#"{
  models: { providers: {
    gpu: { baseUrl: "http://192.168.1.50:8000/v1", models: [
      { id: "qwen", name: "Qwen", reasoning: true, input: ["text", "image"], contextWindow: 32000, maxTokens: 64000,
        cost: { input: 1, output: 2, cacheRead: 0.5, cacheWrite: 0 } },
      { id: "org/llama" },
    ] },
    anthropic: { apiKey: "sk-ant-x" },
  } },
  agents: {
    defaults: {
      model: { primary: "anthropic/claude-sonnet-5", fallbacks: ["big", "gpu/org/llama"] },
      models: { "gpu/qwen": { alias: "Big", params: { thinking: "high" } }, "anthropic/*": {} },
    },
    entries: {
      coder: { model: "gpu/qwen" },
      writer: { model: { primary: "big", fallbacks: ["claude-opus-5"] } },
      patient: { model: { fallbacks: [] } },
    },
  },
}"#;

#[test]
fn models_are_chosen_as_configured() {
    let (catalog, problems) = read(LOCAL, &[]);
    assert_eq!(problems, [""; 0]);
    assert_eq!(catalog.default_model(), Some(reference("anthropic/claude-sonnet-5")));
    assert_eq!(catalog.agent_model("coder"), Some(reference("gpu/qwen")));
    assert_eq!(catalog.agent_model("nobody"), catalog.default_model());
    let check = |agent: &str, expected: &[&str]| assert_eq!(names(catalog.for_agent(agent)), expected, "{agent}");
    check("main", &["anthropic/claude-sonnet-5", "gpu/qwen", "gpu/org/llama"]);
    check("coder", &["gpu/qwen"]);
    check("writer", &["gpu/qwen", "anthropic/claude-opus-5"]);
    check("patient", &["anthropic/claude-sonnet-5"]);
    assert_eq!(names(catalog.candidates(&reference("gpu/qwen"))), ["gpu/qwen", "gpu/org/llama"]);
    assert_eq!(names(catalog.exactly(&reference("gpu/qwen"))), ["gpu/qwen"]);
}

#[test]
fn names_are_resolved() {
    let (catalog, _) = read(LOCAL, &[]);
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(catalog.resolve(text).map(|r| r.to_string()).as_deref(), expected, "{text}");
    };
    check("big", Some("gpu/qwen"));
    check(" BIG ", Some("gpu/qwen"));
    check("gpu/qwen", Some("gpu/qwen"));
    check("gpu/anything/else", Some("gpu/anything/else"));
    check("qwen", Some("gpu/qwen"));
    check("org/llama", Some("gpu/org/llama"));
    check("claude-opus-5", Some("anthropic/claude-opus-5"));
    check("something-new", Some("anthropic/something-new"));
    check("ollama/qwen3:8b", Some("ollama/qwen3:8b"));
    check("nowhere/model", None);
    check("", None);
    let (two, _) = read(
        r#"{ models: { providers: {
            a: { baseUrl: "http://127.0.0.1:1/v1", models: ["same"] }, b: { baseUrl: "http://127.0.0.1:2/v1", models: ["same"] } } } }"#,
        &[],
    );
    assert_eq!(two.resolve("same"), None, "two have it");
    assert_eq!(two.resolve("a/same"), Some(reference("a/same")));
}

#[test]
fn models_are_described_by_config_then_by_what_is_known() {
    let (catalog, _) = read(LOCAL, &[]);
    let qwen = catalog.model(&reference("gpu/qwen"));
    assert_eq!((qwen.name.as_str(), qwen.context_window, qwen.reasoning, qwen.images), ("Qwen", 32_000, true, true));
    assert_eq!(qwen.max_tokens, Some(32_000), "an answer is not longer than the context");
    assert_eq!(qwen.price, Some(Price { input: 1.0, output: 2.0, cache_read: 0.5, cache_write: 0.0 }));
    let llama = catalog.model(&reference("gpu/org/llama"));
    assert_eq!((llama.context_window, llama.max_tokens, llama.images, llama.price), (200_000, None, false, None));
    let sonnet = catalog.model(&reference("anthropic/claude-sonnet-5"));
    assert_eq!((sonnet.name.as_str(), sonnet.max_tokens, sonnet.images), ("Claude Sonnet 5", Some(128_000), true));
    let old = catalog.model(&reference("anthropic/claude-3-5-haiku-20241022"));
    assert_eq!((old.max_tokens, old.reasoning), (Some(8_192), false));
    // 1,000 input, 100 output, 2,000 from the cache at $1, $2 and $0.5 a million.
    let usage = Usage { input: 1_000, output: 100, cache_read: 2_000, cache_write: 7 };
    assert!((qwen.price.unwrap().cost(usage) - 0.0022).abs() < 1e-12);
    // The same name at another address is another product at another price.
    let (proxied, _) =
        read(r#"{ models: { providers: { anthropic: { baseUrl: "https://proxy.test", apiKey: "k-1" } } } }"#, &[]);
    assert_eq!(proxied.model(&reference("anthropic/claude-sonnet-5")).price, None);
}

/// What makes a provider usable or not, and the reason given.
#[test]
fn providers_and_their_keys() {
    let check = |provider: &str, config: &str, env: &[(&str, &str)], expected: Result<&str, &str>| {
        let (catalog, problems) = read(&format!("{{ models: {{ providers: {{ {provider}: {config} }} }} }}"), env);
        let info = catalog.provider(provider).unwrap();
        match expected {
            Ok(source) => {
                assert_eq!(info.available, Ok(()), "{config}");
                assert_eq!(info.key_source.to_string(), source, "{config}");
                assert_eq!(problems, [""; 0]);
            }
            Err(word) => {
                let reason = info.available.unwrap_err();
                assert!(reason.contains(word), "{config}: {reason}");
                assert!(problems.iter().any(|problem| problem.contains(&reason)), "{problems:?}");
                assert_eq!(
                    names_of(catalog.exactly(&ModelRef { provider: provider.to_owned(), model: "m".to_owned() })),
                    None
                );
            }
        }
    };
    fn names_of(candidates: Result<Vec<Candidate>, NoModel>) -> Option<usize> {
        candidates.ok().map(|candidates| candidates.len())
    }
    check("openai", "{ apiKey: 'sk-x' }", &[], Ok("models.providers.openai.apiKey"));
    check("openai", "{}", &[("OPENAI_API_KEY", "sk-y")], Ok("the variable OPENAI_API_KEY"));
    check("openai", "{ apiKey: 'sk-x' }", &[("OPENAI_API_KEY", "sk-y")], Ok("models.providers.openai.apiKey"));
    check("openai", "{ apiKey: '${MY_KEY}' }", &[("MY_KEY", "sk-z")], Ok("models.providers.openai.apiKey"));
    check("openai", "{ apiKey: 'MY_KEY' }", &[("MY_KEY", "sk-z")], Ok("the variable MY_KEY"));
    check(
        "openai",
        "{ apiKey: { source: 'env', id: 'MY_KEY' } }",
        &[("MY_KEY", "sk-z")],
        Ok("models.providers.openai.apiKey"),
    );
    check("openai", "{}", &[], Err("openclaw secrets store set openai-key"));
    // A key that was meant and cannot be had is not made up for by another.
    check("openai", "{ apiKey: '${MY_KEY}' }", &[("OPENAI_API_KEY", "sk-y")], Err("MY_KEY is unset"));
    check("openai", "{ apiKey: 'MY_KEY' }", &[("OPENAI_API_KEY", "sk-y")], Err("MY_KEY, which is unset"));
    check(
        "openai",
        "{ apiKey: { source: 'env', id: 'MY_KEY' } }",
        &[("OPENAI_API_KEY", "sk-y")],
        Err("MY_KEY is unset"),
    );
    check(
        "openai",
        "{ apiKey: { source: 'store', id: 'none' } }",
        &[("OPENAI_API_KEY", "sk-y")],
        Err("secret store has no"),
    );
    check("openai", "{ apiKey: { source: 'file', id: 'value' } }", &[], Err("is not configured"));
    check("mine", "{ baseUrl: 'https://llm.test/v1' }", &[("MINE_API_KEY", "k-1")], Ok("the variable MINE_API_KEY"));
    check("mine", "{ baseUrl: 'https://llm.test/v1' }", &[], Err("it has no key"));
    check(
        "mine",
        "{ baseUrl: 'https://llm.test/v1', headers: { Authorization: 'Basic abc' } }",
        &[],
        Ok("models.providers.mine.headers"),
    );
    check(
        "mine",
        "{ baseUrl: 'https://llm.test/v1', apiKey: 'k', headers: { 'X-Tenant': { source: 'env', id: 'GONE' } } }",
        &[],
        Err("GONE is unset"),
    );
    check("mine", "{ baseUrl: 'http://127.0.0.1:8000/v1' }", &[], Ok("no key"));
    check("mine", "{ baseUrl: 'http://llm.test/v1', apiKey: 'k' }", &[], Err("plain http"));
    check("mine", "{ baseUrl: 'http://169.254.169.254/v1' }", &[], Err("metadata"));
    check("mine", "{ baseUrl: 'https://${HOST}/v1' }", &[], Err("HOST in its baseUrl is unset"));
    check("mine", "{ apiKey: 'k' }", &[], Err("no baseUrl"));
    check(
        "mine",
        "{ baseUrl: 'http://127.0.0.1:1/v1', api: 'bedrock-converse-stream' }",
        &[],
        Err("is not spoken here"),
    );
    check("google", "{ api: 'google-generative-ai', apiKey: 'k' }", &[], Err("openai-completions"));
    check("openai", "{ auth: 'oauth' }", &[], Err("oauth is not spoken"));
    check("google", "{}", &[("GEMINI_API_KEY", "g-1")], Ok("the variable GEMINI_API_KEY"));
    check(
        "ollama",
        "{ baseUrl: 'http://127.0.0.1:11434', api: 'ollama', apiKey: 'ollama-local' }",
        &[],
        Ok("models.providers.ollama.apiKey"),
    );
    // A key of the environment does not go to one's own machine unasked.
    check("vllm", "{}", &[("VLLM_API_KEY", "k-1")], Ok("no key"));
}

#[test]
fn addresses_of_known_providers() {
    let (catalog, _) = read(
        "{ models: { providers: { ollama: { baseUrl: 'http://gpu-box:11434' }, deepseek: { apiKey: 'k-1' }, lan: { baseUrl: 'http://10.0.0.2/v1?token=x' } } } }",
        &[],
    );
    let check = |id: &str, base: &str, api: Api| {
        let info = catalog.provider(id).unwrap();
        assert_eq!((info.base_url.as_str(), info.api), (base, Some(api)), "{id}");
    };
    check("ollama", "http://gpu-box:11434/v1", Api::Completions);
    check("deepseek", "https://api.deepseek.com", Api::Completions);
    check("openai", "https://api.openai.com/v1", Api::Responses);
    check("anthropic", "https://api.anthropic.com", Api::Messages);
    check("lan", "http://10.0.0.2/v1", Api::Completions);
}

/// One provider that fails leaves all others alone, and a fallback is asked in its place, visibly.
#[tokio::test]
async fn a_broken_provider_degrades_alone() {
    let double = Double::start(Script::always(Reply::say("hi")));
    let config = format!(
        r#"{{ models: {{ providers: {{ openai: {{ apiKey: {{ source: "env", id: "GONE" }} }}, mine: {{ baseUrl: "{}" }} }} }},
             agents: {{ defaults: {{ model: {{ primary: "openai/gpt-5.4", fallbacks: ["mine/m"] }} }} }} }}"#,
        double.url()
    );
    let (catalog, problems) = read(&config, &[]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].starts_with("agents.defaults.model.primary: openai/gpt-5.4 cannot be used"), "{problems:?}");
    let candidates = catalog.for_agent("main").unwrap();
    let mut said = Vec::new();
    for candidate in candidates {
        let request = Request {
            model: candidate.model,
            system: String::new(),
            messages: vec![Message::user("hello")].into(),
            tools: Arc::default(),
            thinking: Thinking::Off,
            max_tokens: None,
        };
        let mut stream = candidate.provider.stream(request);
        while let Some(item) = stream.next().await {
            match item {
                Ok(Delta::Text(text)) => said.push(text),
                Ok(_) => {}
                Err(error) => said.push(error.message),
            }
        }
    }
    assert_eq!(said.len(), 2);
    assert!(said[0].contains("openai/gpt-5.4 cannot be used") && said[0].contains("GONE"), "{said:?}");
    assert_eq!(said[1], "hi");
    assert_eq!(double.last().key, None);
}

/// Without a model, the text says what to type (tests/talk.rs of the command line shows that it works); and what that writes
/// is all that is needed.
#[test]
fn no_model_says_what_to_type() {
    let (catalog, problems) = read("{}", &[]);
    assert_eq!(problems, [""; 0]);
    let none = catalog.for_agent("main").err().unwrap();
    assert_eq!(none, NoModel::Unset);
    for line in [
        "openclaw models add anthropic",
        "openclaw models add ollama",
        "openclaw models add mine --base-url http://127.0.0.1:8000/v1",
    ] {
        assert!(none.to_string().lines().any(|have| have.trim() == line), "{line}\n{none}");
    }
    let mine = r#"{ models: { providers: { mine: {"baseUrl":"http://127.0.0.1:8000/v1","models":[{"id":"my-model"}]} } },
        agents: { defaults: { model: { primary: "mine/my-model" } } } }"#;
    assert_eq!(names(read(mine, &[]).0.for_agent("main")), ["mine/my-model"]);
    let ollama = r#"{ agents: { defaults: { model: "ollama/qwen3" } } }"#;
    assert_eq!(names(read(ollama, &[]).0.for_agent("main")), ["ollama/qwen3"]);

    let (catalog, problems) = read(r#"{ agents: { defaults: { model: "gone/m" } } }"#, &[]);
    assert_eq!(catalog.for_agent("main").err(), Some(NoModel::Unknown("gone/m".to_owned())));
    assert_eq!(problems.len(), 1);
    let (catalog, _) = read(r#"{ agents: { defaults: { model: "openai/gpt-5.4" } } }"#, &[]);
    let reason = catalog.for_agent("main").err().unwrap().to_string();
    assert!(reason.starts_with("The model openai/gpt-5.4 cannot be used: it has no key."), "{reason}");
}

#[test]
fn lists() {
    let (catalog, _) = read(LOCAL, &[("OPENAI_API_KEY", "sk-y")]);
    let models = catalog.models();
    let shown: Vec<String> = models
        .iter()
        .map(|listed| {
            let mark = |flag: bool, text: &'static str| if flag { text } else { "" };
            format!("{}{}{}", listed.model.reference, mark(listed.is_default, " *"), mark(listed.is_fallback, " +"))
        })
        .collect();
    assert_eq!(
        &shown[..4],
        ["anthropic/claude-sonnet-5 *", "gpu/qwen +", "gpu/org/llama +", "anthropic/claude-opus-5-5"]
    );
    assert!(shown.iter().any(|line| line == "openai/gpt-5.4"), "{shown:?}");
    assert!(!shown.iter().any(|line| line.starts_with("ollama/") || line.starts_with("mistral/")), "{shown:?}");
    assert_eq!(models[1].alias.as_deref(), Some("Big"));
    assert!(models[1].local && !models[0].local);
    let ids: Vec<String> = catalog.providers().into_iter().map(|info| info.id).collect();
    assert_eq!(ids, ["anthropic", "gpu", "openai"]);
    let (replaced, _) = read(
        r#"{ models: { mode: "replace", providers: { gpu: { baseUrl: "http://10.0.0.1/v1", models: ["a", "b"] } } } }"#,
        &[("OPENAI_API_KEY", "sk-y")],
    );
    let shown: Vec<String> = replaced.models().iter().map(|listed| listed.model.reference.to_string()).collect();
    assert_eq!(shown, ["gpu/a", "gpu/b"]);
}

#[test]
fn overrides_are_allowed_or_not() {
    let config = r#"{ models: { providers: { gpu: { baseUrl: "http://10.0.0.1/v1" } } }, agents: {
        defaults: { models: { "gpu/q": { alias: "Q" } }, modelPolicy: { allow: ["q", "anthropic/*", "openrouter/meta/*"] } },
        entries: { free: { modelPolicy: { allow: [] } }, tied: { modelPolicy: { allow: ["gpu/only"] } } } } }"#;
    let (catalog, _) = read(config, &[]);
    let check = |agent: &str, model: &str, allowed: bool| {
        assert_eq!(catalog.allowed(agent, &reference(model)).is_ok(), allowed, "{agent} {model}");
    };
    check("main", "gpu/q", true);
    check("main", "gpu/other", false);
    check("main", "anthropic/claude-opus-5", true);
    check("main", "openrouter/meta/llama", true);
    check("main", "openrouter/metaphor/x", false);
    check("free", "gpu/other", true);
    check("tied", "gpu/only", true);
    check("tied", "gpu/q", false);
    let error = catalog.allowed("main", &reference("gpu/other")).unwrap_err().to_string();
    assert!(
        error.starts_with("Model override \"gpu/other\" is not allowed by agents.defaults.modelPolicy.allow."),
        "{error}"
    );
    assert!(error.contains("\"gpu/*\""), "{error}");
}

#[test]
fn how_hard_a_model_thinks() {
    let config = r#"{ models: { providers: { gpu: { baseUrl: "http://10.0.0.1/v1", models: [{ id: "r", reasoning: true }, "plain"] } } },
        agents: { defaults: { thinkingDefault: "low", models: { "gpu/r": { params: { thinking: "x-high" } } } },
                  entries: { deep: { thinkingDefault: "max" } } } }"#;
    let (catalog, _) = read(config, &[]);
    let check =
        |agent: &str, model: &str, expected: Thinking| assert_eq!(catalog.thinking(agent, &reference(model)), expected);
    check("main", "gpu/r", Thinking::XHigh);
    check("main", "gpu/plain", Thinking::Low);
    check("deep", "gpu/r", Thinking::Max);
    let (bare, _) = read("{}", &[]);
    assert_eq!(bare.thinking("main", &reference("anthropic/claude-opus-5")), Thinking::Medium);
    assert_eq!(bare.thinking("main", &reference("ollama/gemma")), Thinking::Off);
    assert_eq!(bare.thinking_levels(&reference("ollama/gemma")), [Thinking::Off]);
    assert_eq!(bare.thinking_levels(&reference("anthropic/claude-opus-5")), Thinking::ALL);
}

#[test]
fn words_for_thinking() {
    for (text, level) in [
        ("off", Some(Thinking::Off)),
        ("x-high", Some(Thinking::XHigh)),
        ("extra high", Some(Thinking::XHigh)),
        ("extra_high", Some(Thinking::XHigh)),
        ("Highest", Some(Thinking::High)),
        ("adaptive", Some(Thinking::Medium)),
        ("max", Some(Thinking::Max)),
        ("big", None),
    ] {
        assert_eq!(Thinking::parse(text), level, "{text}");
    }
    Thinking::ALL.iter().for_each(|level| assert_eq!(Thinking::parse(level.as_str()), Some(*level)));
}

/// Nothing that shows a catalog shows a key.
#[test]
fn keys_stay_inside() {
    let config = r#"{ models: { providers: { openai: { apiKey: "sk-tell-nobody", headers: { "X-Key": "tell-nobody-2" }, baseUrl: "https://a.test/v1?key=tell-nobody-3" } } } }"#;
    let (catalog, problems) = read(config, &[("ANTHROPIC_API_KEY", "sk-env-tell-nobody")]);
    let shown = format!("{catalog:?} {problems:?} {:?} {:?}", catalog.providers(), catalog.models());
    assert!(!shown.contains("tell-nobody"), "{shown}");
}

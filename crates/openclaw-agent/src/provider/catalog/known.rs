//! What is known of well-known providers and models without any config: where they are, which variable holds the key, how
//! much they take. Facts of the providers' public pages as of November 2026; `models.providers` overrides all of it.

use super::Api;
use crate::{
    provider::{Model, ModelRef},
    usage::Price,
};

/// A provider everybody has the same address for.
pub(super) struct KnownProvider {
    pub id: &'static str,
    pub api: Api,
    pub base_url: &'static str,
    /// Variables that hold the key, first one wins. Empty: it has none.
    pub env: &'static [&'static str],
}

const fn provider(id: &'static str, api: Api, base_url: &'static str, env: &'static [&'static str]) -> KnownProvider {
    KnownProvider { id, api, base_url, env }
}

/// Servers that run on one's own machine come with no key, so that a key of the environment never goes to them unasked.
pub(super) const PROVIDERS: &[KnownProvider] = &[
    provider("anthropic", Api::Messages, "https://api.anthropic.com", &["ANTHROPIC_API_KEY"]),
    provider("openai", Api::Responses, "https://api.openai.com/v1", &["OPENAI_API_KEY"]),
    provider("openrouter", Api::Completions, "https://openrouter.ai/api/v1", &["OPENROUTER_API_KEY"]),
    provider(
        "google",
        Api::Completions,
        "https://generativelanguage.googleapis.com/v1beta/openai",
        &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
    ),
    provider("xai", Api::Completions, "https://api.x.ai/v1", &["XAI_API_KEY"]),
    provider("deepseek", Api::Completions, "https://api.deepseek.com", &["DEEPSEEK_API_KEY"]),
    provider("mistral", Api::Completions, "https://api.mistral.ai/v1", &["MISTRAL_API_KEY"]),
    provider("groq", Api::Completions, "https://api.groq.com/openai/v1", &["GROQ_API_KEY"]),
    provider("cerebras", Api::Completions, "https://api.cerebras.ai/v1", &["CEREBRAS_API_KEY"]),
    provider("moonshot", Api::Completions, "https://api.moonshot.ai/v1", &["MOONSHOT_API_KEY"]),
    provider("kimi", Api::Messages, "https://api.kimi.com/coding", &["KIMI_API_KEY"]),
    provider("minimax", Api::Messages, "https://api.minimax.io/anthropic", &["MINIMAX_API_KEY"]),
    provider("zai", Api::Completions, "https://api.z.ai/api/paas/v4", &["ZAI_API_KEY", "Z_AI_API_KEY"]),
    provider("synthetic", Api::Messages, "https://api.synthetic.new/anthropic", &["SYNTHETIC_API_KEY"]),
    provider("together", Api::Completions, "https://api.together.xyz/v1", &["TOGETHER_API_KEY"]),
    provider("fireworks", Api::Completions, "https://api.fireworks.ai/inference/v1", &["FIREWORKS_API_KEY"]),
    provider("deepinfra", Api::Completions, "https://api.deepinfra.com/v1/openai", &["DEEPINFRA_API_KEY"]),
    provider(
        "huggingface",
        Api::Completions,
        "https://router.huggingface.co/v1",
        &["HUGGINGFACE_HUB_TOKEN", "HF_TOKEN"],
    ),
    provider("nvidia", Api::Completions, "https://integrate.api.nvidia.com/v1", &["NVIDIA_API_KEY"]),
    provider("novita", Api::Completions, "https://api.novita.ai/openai/v1", &["NOVITA_API_KEY"]),
    provider("venice", Api::Completions, "https://api.venice.ai/api/v1", &["VENICE_API_KEY"]),
    provider("vercel-ai-gateway", Api::Messages, "https://ai-gateway.vercel.sh", &["AI_GATEWAY_API_KEY"]),
    provider("ollama-cloud", Api::Completions, "https://ollama.com/v1", &["OLLAMA_API_KEY"]),
    provider("ollama", Api::Completions, "http://127.0.0.1:11434/v1", &[]),
    provider("lmstudio", Api::Completions, "http://127.0.0.1:1234/v1", &[]),
    provider("vllm", Api::Completions, "http://127.0.0.1:8000/v1", &[]),
    provider("sglang", Api::Completions, "http://127.0.0.1:30000/v1", &[]),
    provider("llama-cpp", Api::Completions, "http://127.0.0.1:8080/v1", &[]),
    provider("litellm", Api::Completions, "http://127.0.0.1:4000/v1", &["LITELLM_API_KEY"]),
];

pub(super) fn known_provider(id: &str) -> Option<&'static KnownProvider> {
    PROVIDERS.iter().find(|provider| provider.id == id)
}

/// Context of a model nobody knows, in tokens (the reference's fallback).
pub(super) const DEFAULT_CONTEXT: u32 = 200_000;

/// A model of a known provider.
struct KnownModel {
    provider: &'static str,
    id: &'static str,
    name: &'static str,
    context: u32,
    max_tokens: u32,
    /// US dollars per million tokens: input, output, cache read, cache write.
    price: [f64; 4],
}

const fn model(
    provider: &'static str,
    id: &'static str,
    name: &'static str,
    context: u32,
    max_tokens: u32,
    price: [f64; 4],
) -> KnownModel {
    KnownModel { provider, id, name, context, max_tokens, price }
}

/// All of these think and see.
const MODELS: &[KnownModel] = &[
    model("anthropic", "claude-opus-5-5", "Claude Opus 5.5", 1_000_000, 128_000, [4.0, 20.0, 0.2, 5.0]),
    model("anthropic", "claude-opus-5", "Claude Opus 5", 1_000_000, 128_000, [5.0, 25.0, 0.5, 6.25]),
    model("anthropic", "claude-sonnet-5", "Claude Sonnet 5", 1_000_000, 128_000, [2.0, 10.0, 0.2, 2.5]),
    model("anthropic", "claude-haiku-4-5", "Claude Haiku 4.5", 200_000, 64_000, [1.0, 5.0, 0.1, 1.25]),
    model("openai", "gpt-6-astra", "GPT-6 Astra", 1_050_000, 128_000, [10.0, 50.0, 1.0, 12.5]),
    model("openai", "gpt-6-sol", "GPT-6 Sol", 1_050_000, 128_000, [2.0, 10.0, 0.2, 2.5]),
    model("openai", "gpt-6-luna", "GPT-6 Luna", 1_050_000, 128_000, [0.1, 0.5, 0.01, 0.125]),
    model("openai", "gpt-5.4", "GPT-5.4", 1_050_000, 128_000, [2.5, 15.0, 0.25, 0.0]),
    model("openai", "gpt-5.4-mini", "GPT-5.4 Mini", 400_000, 128_000, [0.75, 4.5, 0.075, 0.0]),
];

/// What can be said of a family of models: how an id begins, context, answer tokens if it is needed, thinks, sees.
const FAMILIES: &[(&str, u32, Option<u32>, bool, bool)] = &[
    ("claude-3-5-haiku", 200_000, Some(8_192), false, true),
    ("claude-3-5", 200_000, Some(8_192), false, true),
    ("claude-3-7", 200_000, Some(64_000), true, true),
    ("claude-3", 200_000, Some(4_096), false, true),
    ("claude-opus-4-1", 200_000, Some(32_000), true, true),
    ("claude-opus-4-0", 200_000, Some(32_000), true, true),
    ("claude-opus-4-2", 200_000, Some(32_000), true, true), // claude-opus-4-20250514
    ("claude", 200_000, Some(64_000), true, true),
    ("gpt-6", 1_050_000, Some(128_000), true, true),
    ("gpt-5", 400_000, Some(128_000), true, true),
    ("gpt-4.1", 1_000_000, Some(32_768), false, true),
    ("gpt-4o", 128_000, Some(16_384), false, true),
    ("gpt-oss", 131_072, None, true, false),
    ("o1", 200_000, Some(100_000), true, true),
    ("o3", 200_000, Some(100_000), true, true),
    ("o4", 200_000, Some(100_000), true, true),
    ("gemini", 1_000_000, Some(65_536), true, true),
    ("deepseek", 128_000, None, false, false),
];

/// What is known of a model without config. `trusted` is whether the provider is the known one at its known address: only
/// then are names and prices of it true.
pub(super) fn describe(reference: &ModelRef, trusted: bool) -> Model {
    if trusted && let Some(known) = MODELS.iter().find(|m| m.provider == reference.provider && m.id == reference.model)
    {
        return of(known);
    }
    let bare = reference.model.rsplit('/').next().unwrap_or_default();
    let family = FAMILIES.iter().find(|(prefix, ..)| bare.starts_with(prefix));
    let (context_window, max_tokens, reasoning, images) = family
        .map_or((DEFAULT_CONTEXT, None, false, false), |&(_, context, max, thinks, sees)| (context, max, thinks, sees));
    Model {
        reference: reference.clone(),
        name: reference.model.clone(),
        context_window,
        max_tokens,
        reasoning,
        images,
        price: None,
    }
}

/// The models of a provider worth listing without config.
pub(super) fn models_of(provider: &str) -> impl Iterator<Item = Model> {
    MODELS.iter().filter(move |known| known.provider == provider).map(of)
}

fn of(known: &KnownModel) -> Model {
    let [input, output, cache_read, cache_write] = known.price;
    Model {
        reference: ModelRef { provider: known.provider.to_owned(), model: known.id.to_owned() },
        name: known.name.to_owned(),
        context_window: known.context,
        max_tokens: Some(known.max_tokens),
        reasoning: true,
        images: true,
        price: Some(Price { input, output, cache_read, cache_write }),
    }
}

//! Why there is no model to ask, and what to type to have one.

use std::fmt;

use crate::provider::ModelRef;

/// No model can be asked. Its text is for people in a chat or at a terminal and says what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoModel {
    /// The config names none.
    Unset,
    /// Nobody has a model of this name.
    Unknown(String),
    /// All that were named, and why not.
    Unavailable(Vec<(ModelRef, String)>),
}

/// Markdown, since it is shown in chats: what is to be typed stands in paragraphs of its own.
const HOW: &str = "\
With a key of Anthropic, OpenAI, OpenRouter or another known provider (it asks for the key):

    openclaw models add anthropic

With a model server on this machine (ollama; vllm, llama-cpp and lmstudio alike):

    openclaw models add ollama

With any other server that speaks the OpenAI API:

    openclaw models add mine --base-url http://127.0.0.1:8000/v1

It works from the next message on; no restart is needed.";

impl fmt::Display for NoModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => write!(
                f,
                "No model is configured, so nobody can answer yet. Add one on the gateway's machine.\n\n{HOW}"
            ),
            Self::Unknown(name) => {
                write!(
                    f,
                    "No configured provider has a model called {name:?}. `openclaw models list` shows those there are; "
                )?;
                f.write_str("name one as provider/model, such as anthropic/claude-sonnet-5.")
            }
            Self::Unavailable(reasons) => {
                match &reasons[..] {
                    [(model, reason)] => write!(f, "The model {model} cannot be used: {reason}"),
                    several => {
                        f.write_str("None of the configured models can be used:")?;
                        several.iter().try_for_each(|(model, reason)| write!(f, "\n- {model}: {reason}"))
                    }
                }?;
                f.write_str("\n`openclaw models status` shows every provider and where its key comes from.")
            }
        }
    }
}

impl std::error::Error for NoModel {}

/// The owner restricts which models can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Model override \"{model}\" is not allowed by {key}. Add it or \"{}/*\" to that list, or empty the list to allow every model.", model.provider)]
pub struct NotAllowed {
    pub model: ModelRef,
    /// The list that decides: `agents.defaults.modelPolicy.allow` or an agent's own.
    pub key: String,
}

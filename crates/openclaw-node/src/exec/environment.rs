//! The environment of a program: an allow-list, for what this process passes down and for what a request may set (P-59).
//!
//! A node's own environment holds tokens and the owner's settings; a request's could hold `LD_PRELOAD`. So names are
//! listed, not forbidden: what nobody thought of does not pass. The owner may add names (`openclaw node run
//! --allow-env NAME`), except those that make other programs run something.

use std::collections::BTreeMap;

/// What a program inherits if this process has it.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "TMPDIR",
    "HOSTNAME",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE",
    "XDG_CURRENT_DESKTOP",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    // How this machine reaches the world, and whom it trusts there.
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// What a request may set: how output looks, and in which language and time zone.
const SETTABLE: &[&str] = &[
    "TERM",
    "LANG",
    "LANGUAGE",
    "TZ",
    "COLORTERM",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "LINES",
];
/// `LC_ALL`, `LC_CTYPE` and their like.
const LOCALE: &str = "LC_";

/// Beginnings of names that make programs load, run or trust something else. Never allowed, not even by the owner.
const DANGEROUS_STARTS: &[&str] = &[
    "LD_",
    "DYLD_",
    "BASH_FUNC_",
    "GIT_",
    "NPM_",
    "NODE_",
    "PYTHON",
    "PERL",
    "RUBY",
    "GEM_",
    "BUNDLE_",
    "PIP_",
    "UV_",
    "CARGO",
    "RUST",
    "JAVA",
    "JDK_",
    "_JAVA",
    "LUA_",
    "PHP",
    "SSH_",
    "SVN_",
    "HG",
    "R_",
    "GCONV_",
    "GLIBC_",
    "MALLOC_",
    "OPENSSL_",
    "SSL_",
    "CURL_",
    "REQUESTS_",
    "DOCKER_",
    "COMPOSER_",
    "CONDA_",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "XDG_",
    "OPENCLAW_",
    "DOTNET_",
    "CORECLR_",
    "ANSIBLE_",
    "CMAKE_",
    "GO",
    "DENO_",
    "BUN_",
    "YARN_",
    "ERL_",
    "ELIXIR_",
    "MAVEN_",
    "GRADLE_",
    "EMACS",
    "VIM",
    "TF_",
    "HELM_",
    "LESS",
    "SUDO_",
    "MYVIMRC",
];
/// Whole names of the same kind.
const DANGEROUS: &[&str] = &[
    "PATH",
    "HOME",
    "ENV",
    "IFS",
    "SHELL",
    "SHELLOPTS",
    "BASHOPTS",
    "BASH_ENV",
    "BASH",
    "ZDOTDIR",
    "FPATH",
    "PS4",
    "PROMPT_COMMAND",
    "KSH_ENV",
    "CDPATH",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "MANPAGER",
    "BROWSER",
    "FCEDIT",
    "CC",
    "CXX",
    "CPP",
    "MAKE",
    "MAKEFLAGS",
    "MFLAGS",
    "CFLAGS",
    "LDFLAGS",
    "CPATH",
    "LIBRARY_PATH",
    "CLASSPATH",
    "KUBECONFIG",
    "HISTFILE",
    "HOSTALIASES",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "EXINIT",
    "WGETRC",
    "TCLLIBPATH",
    "CONFIG_SITE",
    "CONFIG_SHELL",
    "VIRTUAL_ENV",
    "SSLKEYLOGFILE",
];
/// Longest value a request may set. 32 KiB.
const MAX_VALUE_BYTES: usize = 32 * 1024;

/// Names the owner added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlsoAllowed(Vec<String>);

impl AlsoAllowed {
    /// # Errors
    /// Why the first name that cannot be added cannot.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut kept = Vec::new();
        for name in names {
            if !is_portable(&name) {
                return Err(format!("\"{}\" is not the name of a variable", name.escape_debug()));
            }
            if is_dangerous(&name) {
                return Err(format!("{name} makes other programs load or trust something, so it is never passed on"));
            }
            kept.push(name);
        }
        kept.sort();
        kept.dedup();
        Ok(Self(kept))
    }

    pub fn names(&self) -> &[String] {
        &self.0
    }

    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|allowed| allowed == name)
    }
}

/// Variables of a request that are not passed on. Nothing runs then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Valid names that nobody allowed.
    pub blocked: Vec<String>,
    /// Not names at all, or values that no program can be given.
    pub invalid: Vec<String>,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lists = [("blocked override keys", &self.blocked), ("invalid non-portable override keys", &self.invalid)];
        let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let lists: Vec<String> = lists.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        write!(f, "SYSTEM_RUN_DENIED: environment override rejected ({})", lists.join("; "))
    }
}

/// What a program gets of this process's own environment.
pub fn inherited(own: impl IntoIterator<Item = (String, String)>, also: &AlsoAllowed) -> BTreeMap<String, String> {
    let passes = |name: &str| INHERITED.contains(&name) || is_locale(name) || also.contains(name);
    own.into_iter().filter(|(name, _)| passes(name)).collect()
}

/// What a request sets.
///
/// # Errors
/// [`Rejected`] unless every variable passes.
pub fn overrides(given: &BTreeMap<String, String>, also: &AlsoAllowed) -> Result<BTreeMap<String, String>, Rejected> {
    let mut rejected = Rejected::default();
    for (name, value) in given {
        if !is_portable(name) || value.contains('\0') || value.len() > MAX_VALUE_BYTES {
            rejected.invalid.push(name.escape_debug().to_string());
        } else if !(SETTABLE.contains(&name.as_str()) || is_locale(name) || also.contains(name)) {
            rejected.blocked.push(name.clone());
        }
    }
    if rejected == Rejected::default() { Ok(given.clone()) } else { Err(rejected) }
}

fn is_portable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 128
}

fn is_locale(name: &str) -> bool {
    name.strip_prefix(LOCALE).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase()))
}

fn is_dangerous(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    DANGEROUS.contains(&upper.as_str())
        || upper.ends_with("_PROXY")
        || DANGEROUS_STARTS.iter().any(|start| upper.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The list of the case, mixed spellings included.
    #[test]
    fn p_59_only_an_allow_list_passes() {
        let dangerous = [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "NODE_OPTIONS",
            "NODE_PATH",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHONHOME",
            "PYTHONBREAKPOINT",
            "PERL5LIB",
            "PERL5OPT",
            "PERL5DB",
            "RUBYOPT",
            "RUBYLIB",
            "BASH_ENV",
            "ENV",
            "IFS",
            "GIT_SSH",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "GIT_EXEC_PATH",
            "GIT_EXTERNAL_DIFF",
            "npm_config_script_shell",
            "NPM_CONFIG_REGISTRY",
            "PIP_INDEX_URL",
            "CARGO_HOME",
            "CARGO_BUILD_RUSTC_WRAPPER",
            "RUSTC_WRAPPER",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "PATH",
            "Path",
            "HOME",
            "HTTP_PROXY",
            "https_proxy",
            "All_Proxy",
            "SSL_CERT_FILE",
            "NODE_EXTRA_CA_CERTS",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "ld_preload",
            "Ld_Preload",
            "BASH_FUNC_ls%%",
            "SHELLOPTS",
            "PS4",
            "PROMPT_COMMAND",
            "EDITOR",
            "PAGER",
            "OPENCLAW_GATEWAY_TOKEN",
            "LC_",
            "term",
        ];
        let none = AlsoAllowed::default();
        for name in dangerous {
            assert!(overrides(&map(&[(name, "x")]), &none).is_err(), "{name} may not be set");
            let allowed = AlsoAllowed::new([name.to_owned()]);
            assert!(allowed.is_err() || ["LC_", "term"].contains(&name), "{name} may not be allowed");
        }
        for name in ["SOMETHING_NEW", "", "1A", "A B", "A=B", "é", "A\n"] {
            assert!(overrides(&map(&[(name, "x")]), &none).is_err(), "{name:?}");
        }
        let fine = map(&[("LC_ALL", "C"), ("LC_CTYPE", "C.UTF-8"), ("TERM", "dumb"), ("NO_COLOR", "1"), ("TZ", "UTC")]);
        assert_eq!(overrides(&fine, &none), Ok(fine.clone()));
        assert!(overrides(&map(&[("TERM", "a\0b")]), &none).is_err());
    }

    #[test]
    fn refusals_use_the_references_words() {
        let refused = overrides(&map(&[("FOO", "1"), ("BAD NAME", "1"), ("TERM", "x")]), &AlsoAllowed::default());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "SYSTEM_RUN_DENIED: environment override rejected (blocked override keys: FOO; invalid non-portable \
             override keys: BAD NAME)"
        );
    }

    #[test]
    fn the_owner_may_add_harmless_names() {
        let also = AlsoAllowed::new(["CI".to_owned(), "APP_MODE".to_owned()]).unwrap();
        assert!(overrides(&map(&[("CI", "1"), ("APP_MODE", "test")]), &also).is_ok());
        assert!(overrides(&map(&[("ci", "1")]), &also).is_err());
    }

    #[test]
    fn what_programs_inherit() {
        let own = map(&[
            ("PATH", "/usr/bin"),
            ("HOME", "/home/u"),
            ("LC_TIME", "C"),
            ("OPENCLAW_GATEWAY_TOKEN", "secret"),
            ("LD_PRELOAD", "/x.so"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("CI", "1"),
            ("BASH_ENV", "/x"),
        ]);
        let of = |also: &AlsoAllowed| inherited(own.clone(), also).into_keys().collect::<Vec<_>>();
        assert_eq!(of(&AlsoAllowed::default()), ["HOME", "LC_TIME", "PATH"]);
        assert_eq!(of(&AlsoAllowed::new(["CI".to_owned()]).unwrap()), ["CI", "HOME", "LC_TIME", "PATH"]);
    }
}

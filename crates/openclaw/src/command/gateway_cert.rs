//! `openclaw gateway cert`: the certificate of this machine's gateway, and a new one before the old one ends.

use clap::{Args, Subcommand};
use openclaw_config::{Certificate, TlsFiles, files::FileError, gateway::ReloadMode, tls::CertificateError};
use openclaw_gateway::tls::{
    date,
    make::{self, MakeError, Renewed},
};
use serde_json::{Value, json};

use crate::{
    args::JsonFlag,
    context::{Context, Loaded},
    failure::{Failure, Outcome, capitalised},
    output::{
        self, Tone, inert,
        table::{Cell, Facts},
    },
};

#[derive(Args, Debug)]
pub struct GatewayCert {
    #[command(subcommand)]
    pub command: CertCommand,
}

#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Its fingerprints, its dates, and how a client pins it
    Show(JsonFlag),
    /// Replace a certificate the gateway made itself; pins of the key stay valid
    Renew(CertRenew),
}

#[derive(Args, Debug)]
pub struct CertRenew {
    /// Make a new key as well: for a key that may be known to others. Every client has to be told the new pin
    #[arg(long)]
    pub new_key: bool,
    #[command(flatten)]
    pub flag: JsonFlag,
}

impl GatewayCert {
    pub const fn wants_json(&self) -> bool {
        match &self.command {
            CertCommand::Show(flag) => flag.json,
            CertCommand::Renew(args) => args.flag.json,
        }
    }
}

pub fn run(context: &Context, args: &GatewayCert) -> Outcome {
    let loaded = context.config_for_diagnosis()?;
    // With other settings it could be another certificate.
    if let Some(problem) = &loaded.problem {
        return Err(context.invalid(problem));
    }
    let files = TlsFiles::of(&loaded.gateway, &context.paths);
    match &args.command {
        CertCommand::Show(flag) => show(context, &loaded, &files, flag.json),
        CertCommand::Renew(args) => renew(context, &loaded, &files, args),
    }
}

fn show(context: &Context, loaded: &Loaded, files: &TlsFiles, as_json: bool) -> Outcome {
    let certificate = Certificate::read(&files.certificate).map_err(|error| unreadable(loaded, files, error))?;
    if as_json {
        let mut shown = facts_json(files, &certificate);
        shown["enabled"] = json!(loaded.gateway.tls.enabled);
        output::json(&shown);
        return Ok(0);
    }
    let path = |path: &std::path::Path| inert(&context.paths.display(path)).into_owned();
    let now = jiff::Timestamp::now().as_second();
    let (from, until) = certificate.valid_s;
    let valid = format!("{} to {}", date(from), date(until));
    let valid = if (from..=until).contains(&now) { Cell::from(valid) } else { Cell::toned(Tone::Bad, valid) };
    let mut facts = Facts::new();
    facts
        .row("Certificate", path(&files.certificate))
        .row("Key", path(&files.key))
        .row("Issued by", if certificate.self_made { "the gateway itself" } else { "an authority" })
        .row("Valid", valid)
        .row("Pin", certificate.fingerprint.to_string())
        .row("Pin of the key", certificate.key_fingerprint.to_string());
    output::print(&facts.render(context.output.out));
    if !loaded.gateway.tls.enabled {
        let on = context.output.out.paint(Tone::Command, "openclaw config set gateway.tls.enabled true");
        output::line(format!("gateway.tls is off, so nobody is shown this certificate. Turn it on: {on}"));
    }
    let pin = format!("openclaw config set gateway.remote.tlsFingerprint {}", certificate.key_fingerprint);
    output::line(format!("Pin it on a client: {}", context.output.out.paint(Tone::Command, &pin)));
    output::line("The pin of the key outlives renewals; clients other than this program take the first pin only.");
    Ok(0)
}

fn renew(context: &Context, loaded: &Loaded, files: &TlsFiles, args: &CertRenew) -> Outcome {
    let renewed = make::renew(files, &make::names(), args.new_key).map_err(|error| match error {
        MakeError::Certificate(error) => unreadable(loaded, files, error),
        other => Failure::new(inert(&capitalised(&other.to_string())).into_owned()),
    })?;
    let paused = loaded.gateway.reload_mode == ReloadMode::Off;
    let Renewed { before, after } = &renewed;
    if args.flag.json {
        let mut shown = facts_json(files, after);
        shown["previous"] = json!({
            "fingerprintSha256": before.fingerprint.to_string(), "keyFingerprint": before.key_fingerprint.to_string(),
        });
        shown["keptKey"] = json!(renewed.kept_key());
        output::json(&shown);
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!("{} A new certificate, valid until {}.", style.ok(), date(after.valid_s.1)));
    output::line(match paused {
        true => "gateway.reload.mode is off: a running gateway shows it after a restart.",
        false => "A running gateway shows it within a few seconds; open connections stay.",
    });
    if renewed.kept_key() {
        output::line(format!("Clients that pin the key notice nothing ({}).", after.key_fingerprint));
    } else {
        output::line("The key is new: every pin of the old one is refused from now on.");
    }
    output::line(format!("Clients that pin the certificate {}", before.fingerprint));
    output::line(format!("  have to be given the new one:     {}", after.fingerprint));
    let pin = if renewed.kept_key() { after.fingerprint } else { after.key_fingerprint };
    let pin = format!("openclaw config set gateway.remote.tlsFingerprint {pin}");
    output::line(format!("On each of them: {}", style.paint(Tone::Command, &pin)));
    Ok(0)
}

fn facts_json(files: &TlsFiles, certificate: &Certificate) -> Value {
    let (from, until) = certificate.valid_s;
    json!({
        "certPath": files.certificate, "keyPath": files.key, "selfMade": certificate.self_made,
        "validFromMs": from * 1000, "validUntilMs": until * 1000,
        "fingerprintSha256": certificate.fingerprint.to_string(),
        "keyFingerprint": certificate.key_fingerprint.to_string(),
    })
}

fn unreadable(loaded: &Loaded, files: &TlsFiles, error: CertificateError) -> Failure {
    let none = matches!(
        &error,
        CertificateError::File(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound
    );
    if !none {
        return Failure::new(format!("{}.", inert(&capitalised(&error.to_string()))));
    }
    let failure =
        Failure::new(format!("There is no certificate yet at {}.", inert(&files.certificate.display().to_string())));
    match loaded.gateway.tls.enabled {
        true => failure.remedy("the gateway makes one when it starts; start it", "openclaw gateway"),
        false => failure.remedy(
            "the gateway makes one when it starts with TLS; turn that on",
            "openclaw config set gateway.tls.enabled true",
        ),
    }
}

//! `openclaw migrate`: takes over what an existing OpenClaw left in its state directory, and leaves that as it is.

use openclaw_gateway::migrate::{
    self, Item, ItemKind, ItemState, MigrateError, MigrationPlan, MigrationReport, Outcome as Done,
};
use serde_json::json;

use crate::{
    args::Migrate,
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert},
};

pub fn run(context: &Context, args: &Migrate) -> Outcome {
    let source = context.paths.expand(&args.path.to_string_lossy());
    let plan = migrate::plan(&source, &context.paths).map_err(failed)?;
    let (style, conflicts) = (context.output.out, plan.items.iter().any(|item| item.state == ItemState::Conflict));
    if args.dry_run {
        if args.json {
            output::json(&plan_json(&plan));
        } else {
            show_plan(&plan, style);
            output::line("");
            output::line("Nothing was changed (--dry-run).");
        }
        return Ok(0);
    }
    let now = openclaw_gateway::clock::now_ms();
    let report = migrate::apply(&plan, &context.paths, args.overwrite, now).map_err(failed)?;
    if args.json {
        output::json(&json!({"ok": true, "source": plan.source, "found": plan.found, "report": report}));
        return Ok(0);
    }
    show_report(&plan, &report, style);
    if conflicts && !args.overwrite {
        output::line("");
        output::line(format!(
            "What was here already was kept. To replace it (copies are kept): {}",
            style.paint(
                Tone::Command,
                &format!("openclaw migrate {} --overwrite", inert(&args.path.display().to_string()))
            )
        ));
    }
    output::line("");
    output::line(format!("Next: {}", style.paint(Tone::Command, "openclaw gateway")));
    Ok(0)
}

fn failed(error: MigrateError) -> Failure {
    let text = error.to_string();
    let mut lines = text.lines().map(|line| inert(line).into_owned());
    let failure = lines.next().map_or_else(|| Failure::new("The import failed."), Failure::new);
    let failure = lines.fold(failure, Failure::detail);
    match error {
        MigrateError::NotADirectory(_) | MigrateError::NothingFound(_) => {
            failure.remedy("look where the other OpenClaw keeps its state", "ls -a ~/.openclaw ~/.clawdbot")
        }
        MigrateError::Lock(_) => failure.remedy("see who runs here", "openclaw gateway status"),
        _ => failure,
    }
}

fn plan_json(plan: &MigrationPlan) -> serde_json::Value {
    json!({
        "ok": true, "dryRun": true, "source": plan.source, "found": plan.found, "items": plan.items,
        "warnings": plan.warnings, "leftAlone": plan.left_alone,
    })
}

fn show_plan(plan: &MigrationPlan, style: Style) {
    heading(plan, style);
    for item in &plan.items {
        let state = match item.state {
            ItemState::New => style.paint(Tone::Good, "new"),
            ItemState::Same => style.paint(Tone::Dim, "same"),
            ItemState::Conflict => style.paint(Tone::Warn, "differs"),
            ItemState::InPlace => style.paint(Tone::Dim, "in place"),
        };
        output::line(format!("  {:<14} {}  {state}", kind(item.kind), named(item)));
    }
    remarks(&plan.warnings, &plan.left_alone, style);
}

fn show_report(plan: &MigrationPlan, report: &MigrationReport, style: Style) {
    heading(plan, style);
    for done in &report.done {
        let outcome = match done.outcome {
            Done::Imported => style.paint(Tone::Good, "imported"),
            Done::Replaced => style.paint(Tone::Warn, "replaced"),
            Done::Kept => style.paint(Tone::Warn, "kept what was here"),
            Done::Unchanged => style.paint(Tone::Dim, "unchanged"),
        };
        output::line(format!("  {:<14} {}  {outcome}", kind(done.kind), inert(&done.name)));
    }
    for backup in &report.backups {
        output::line(format!("  copy of the old file: {}", inert(&backup.display().to_string())));
    }
    remarks(&report.warnings, &plan.left_alone, style);
}

fn heading(plan: &MigrationPlan, style: Style) {
    let found = plan.found.iter().map(|text| inert(text)).collect::<Vec<_>>().join(", ");
    let source = plan.source.display().to_string();
    output::line(style.paint(Tone::Title, &format!("OpenClaw state in {}: {found}", inert(&source))));
}

fn remarks(warnings: &[String], left_alone: &[String], style: Style) {
    for warning in warnings {
        output::line(format!("{} {}", style.warn(), inert(warning)));
    }
    if !left_alone.is_empty() {
        let names = left_alone.iter().map(|name| inert(name)).collect::<Vec<_>>().join(", ");
        output::line(style.paint(Tone::Dim, &format!("Not imported, left where it is: {names}")));
    }
}

fn named(item: &Item) -> String {
    let name = inert(&item.name);
    item.detail.as_deref().map_or_else(|| name.to_string(), |detail| format!("{name} ({})", inert(detail)))
}

const fn kind(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Config => "config",
        ItemKind::Include => "include",
        ItemKind::DotEnv => ".env",
        ItemKind::ExecApprovals => "exec approvals",
        ItemKind::Identity => "identity",
        ItemKind::ClientToken => "client token",
        ItemKind::Device => "device",
    }
}

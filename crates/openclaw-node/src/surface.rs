//! What a node says of itself when it connects: capability families, commands and the search path.

use crate::command::Toolbox;

/// The declaration. Both lists are sorted, as the reference sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    pub caps: Vec<String>,
    pub commands: Vec<String>,
    pub path_env: String,
}

impl Surface {
    /// What this machine can do, or as much of it as the owner lists.
    pub fn of(toolbox: &Toolbox, only: Option<&[String]>) -> Self {
        let offers = toolbox.offers().into_iter();
        let offers = offers.filter(|(command, _)| only.is_none_or(|only| only.iter().any(|name| name == command)));
        let (mut commands, mut caps): (Vec<String>, Vec<String>) =
            offers.map(|(command, cap)| (command.to_owned(), cap.to_owned())).unzip();
        for list in [&mut commands, &mut caps] {
            list.sort();
            list.dedup();
        }
        Self { caps, commands, path_env: toolbox.search_path().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::bench::Bench;

    /// Of the list in `node-run-pair-invoke` what this program does, by the same names and in the same order.
    #[test]
    fn the_declaration() {
        let bench = Bench::new("{}");
        let surface = Surface::of(&bench.toolbox, None);
        for command in [
            "fs.listDir",
            "system.execApprovals.get",
            "system.execApprovals.set",
            "system.run",
            "system.run.prepare",
            "system.which",
        ] {
            assert!(surface.commands.iter().any(|name| name == command), "{command}");
        }
        assert!(surface.commands.is_sorted() && surface.caps.is_sorted());
        assert!(surface.caps.contains(&"system".to_owned()));
        assert_eq!(surface.path_env, "/usr/bin:/bin");
        // No screen without a desktop.
        assert!(!surface.commands.contains(&"screen.snapshot".to_owned()));
    }

    #[test]
    fn the_owner_restricts_it() {
        let bench = Bench::new("{}");
        let only = ["system.which".to_owned(), "no.such".to_owned()];
        let surface = Surface::of(&bench.toolbox, Some(&only));
        assert_eq!((surface.commands, surface.caps), (vec!["system.which".to_owned()], vec!["system".to_owned()]));
    }
}

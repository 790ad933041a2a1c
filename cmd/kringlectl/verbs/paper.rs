//! `completions` and `man`: what shells and readers of manuals want, made from the one definition.

use crate::arguments::Arguments;
use crate::exit::{Exit, Failed};
use clap::CommandFactory;
use clap_complete::Shell as Kind;
use std::io::Write;
use std::path::PathBuf;

/// Completions for a shell, on standard output
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  source <(kringlectl completions bash)
  kringlectl completions zsh > ~/.zfunc/_kringlectl
  kringlectl completions fish > ~/.config/fish/completions/kringlectl.fish")]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Known,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Manual pages: one on standard output, or all into a folder
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl man | man -l -
  kringlectl man get | man -l -
  kringlectl man --to ~/.local/share/man/man1")]
pub struct Man {
    /// The page of this verb, such as get, or sync run
    #[arg(conflicts_with = "to")]
    verb: Vec<String>,
    /// Writes the pages of all verbs into this folder, made if missing
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

impl Completions {
    /// Writes them.
    pub fn run(&self) -> Result<Exit, Failed> {
        let kind = match self.shell {
            Known::Bash => Kind::Bash,
            Known::Zsh => Kind::Zsh,
            Known::Fish => Kind::Fish,
        };
        let mut text = Vec::new();
        clap_complete::generate(kind, &mut Arguments::command(), "kringlectl", &mut text);
        std::io::stdout().lock().write_all(&text)?;
        Ok(Exit::Ok)
    }
}

impl Man {
    /// Writes the page, or all.
    pub fn run(&self) -> Result<Exit, Failed> {
        let mut command = Arguments::command();
        if let Some(folder) = &self.to {
            let failed = |error| Failed::new(Exit::Unexpected, format!("{}: {error}", folder.display()));
            std::fs::create_dir_all(folder).map_err(failed)?;
            clap_mangen::generate_to(command, folder).map_err(failed)?;
            return Ok(Exit::Ok);
        }
        command.build();
        let mut page = &command;
        for verb in &self.verb {
            let unknown = || Failed::usage(format!("there is no verb {verb}")).hint("kringlectl --help lists them");
            page = page.find_subcommand(verb).ok_or_else(unknown)?;
        }
        let mut text = Vec::new();
        clap_mangen::Man::new(page.clone()).render(&mut text)?;
        std::io::stdout().lock().write_all(&text)?;
        Ok(Exit::Ok)
    }
}

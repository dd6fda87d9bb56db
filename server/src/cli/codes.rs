//! `scrip codes`: the keys of coupon codes.

use std::path::PathBuf;

use clap::Subcommand;

use crate::codes::key::CodeKeys;

#[derive(Debug, Subcommand)]
pub enum CodesCommand {
    /// Make a file with a key for coupon codes, or add a key to it, which new batches then use.
    ///
    /// Every server of a store needs the same file (codes.key_file). Back it up apart from the database.
    NewKey {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl CodesCommand {
    pub fn run(self) -> anyhow::Result<()> {
        let CodesCommand::NewKey { file } = self;
        let id = CodeKeys::add_to(&file)?;
        println!("{} has the key {id} now. Servers use it after a restart; back the file up.", file.display());
        Ok(())
    }
}

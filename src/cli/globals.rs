//! Flags of every command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, ColorChoice};

use crate::model::device::DeviceChoice;

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Model to use: a bundle file, or the name of one in the models folder
    #[arg(long, global = true, value_name = "BUNDLE|NAME")]
    #[arg(env = "TINYFIND_MODEL", hide_env_values = true)]
    pub(crate) model: Option<OsString>,

    /// Folder of the index [default: tinyfind/index in the user's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    #[arg(env = "TINYFIND_INDEX", hide_env_values = true)]
    pub(crate) index: Option<PathBuf>,

    /// Where the model runs: auto, cpu, cuda or cuda:N
    #[arg(long, global = true, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,

    /// Say more on stderr; again for still more
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,

    /// Say nothing on stderr but errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// When to use colour; `auto` heeds `NO_COLOR`
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}

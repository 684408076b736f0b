//! The CNI plugin, whole: called as a runtime calls it, with the standard plugins behind it.

mod install;
mod pods;
mod rendering;
mod words;

//! The CNI plugin, whole: called as a runtime calls it, with the standard plugins behind it.

mod rendering;

//! Whatever the configuration is: it is refused in one line, or every pool in it can be leased from.
#![no_main]

use lease::{NetworkConfig, Rng, alloc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match text.parse::<NetworkConfig>() {
    Ok(config) => {
        assert!(config.v4.is_some() || config.v6.is_some());
        let key = alloc::choose(&config, &[], &mut Rng::new(0)).expect("an empty pool has room");
        assert!(config.admits(key), "{key} does not fit {config:?}");
    }
    Err(error) => assert!(!error.to_string().contains('\n'), "more than a line: {error}"),
});

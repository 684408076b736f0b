//! Several hosts on one machine: `make demo` tells a story and checks every step of it, `make playground` leaves the
//! hosts to whoever wants to try something. Both run in `tests/support/sandbox`.

mod cast;
mod meet;
mod mend;
mod part;
mod playground;
mod tale;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::cast::Cast;
use crate::tale::Tale;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let told = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => demo(),
        ["playground"] => playground::open(),
        _ => Err(anyhow::anyhow!("usage: demo [playground]")),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let start = Instant::now();
    let mut tale = Tale::new();
    tale.title(
        "loden: a VXLAN overlay",
        "Hosts and containers are namespaces, all else is real. This machine's own network is out of reach.",
    );
    let mut cast = Cast::new()?;
    let steps = [
        meet::three_hosts,
        meet::ping_matrix,
        meet::fourth_host,
        mend::device,
        mend::entries,
        part::killed_under_a_stream,
        part::bad_records,
        part::a_host_leaves,
    ];
    for step in steps {
        cast.suspect = None;
        if let Err(error) = step(&mut cast, &mut tale) {
            tale.failed(&error, &cast.logs());
            bail!("not all that was to hold does");
        }
    }
    tale.summary(start.elapsed());
    Ok(())
}

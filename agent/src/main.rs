//! The binary.

fn main() -> std::process::ExitCode {
    sidestream::cli::main()
}

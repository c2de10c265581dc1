//! What shells complete, from the definition. `agent/share/completions` has these texts as files.

use super::defs::{COMMANDS, Cmd, GLOBAL, Opt, PROGRAM, Takes};

/// The words about an option that stand alone.
fn short(option: &Opt) -> &'static str {
    let end = option.help.find([';', ':', '[', '(']).unwrap_or(option.help.len());
    option.help[..end].trim_end()
}

fn all_options(command: &Cmd) -> impl Iterator<Item = &'static Opt> {
    command.options.iter().chain(GLOBAL)
}

/// For bash: `bash-completion/completions/halfkey-agent`.
pub fn bash() -> String {
    let names = |names: &mut dyn Iterator<Item = &'static str>| names.collect::<Vec<_>>().join(" ");
    let dashed = |options: &mut dyn Iterator<Item = &'static Opt>| {
        options.map(|option| format!("--{}", option.name)).collect::<Vec<_>>().join(" ")
    };
    let mut out = format!(
        "# bash completion of {PROGRAM}. Written from its command line's definition: edit that.\n\
         _halfkey_agent() {{\n    \
             local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= i options takes=\n    \
             for ((i = 1; i < COMP_CWORD; i++)); do\n        \
                 case ${{COMP_WORDS[i]}} in\n            \
                     {}) ((i++)) ;;\n            \
                     -*) ;;\n            \
                     *) command=${{COMP_WORDS[i]}}; break ;;\n        \
                 esac\n    \
             done\n    \
             COMPREPLY=()\n    \
             case $command in\n        \
                 '') options='{} --version'; takes='words {}' ;;\n",
        dashed(&mut GLOBAL.iter()).replace(' ', "|"),
        dashed(&mut GLOBAL.iter()) + " --help",
        names(&mut COMMANDS.iter().map(|command| command.name)),
    );
    for command in COMMANDS {
        let options = dashed(&mut all_options(command)) + " --help";
        let operands = bash_takes(command.operands);
        out.push_str(&format!("        {}) options='{options}'; takes={operands} ;;\n", command.name));
    }
    out.push_str("        *) return ;;\n    esac\n    case $command:$before in\n");
    for option in GLOBAL {
        out.push_str(&format!(
            "        *:--{}) options=; takes={} ;;\n",
            option.name,
            bash_takes(option.takes)
        ));
    }
    for command in COMMANDS {
        for option in command.options.iter().filter(|option| option.takes != Takes::Nothing) {
            let takes = bash_takes(option.takes);
            out.push_str(&format!(
                "        {}:--{}) options=; takes={takes} ;;\n",
                command.name, option.name
            ));
        }
    }
    out.push_str(
        "    esac\n    \
             case $word:$takes in\n        \
                 -*) mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\") ;;\n        \
                 *:'words '*) mapfile -t COMPREPLY < <(compgen -W \"${takes#words }\" -- \"$word\") ;;\n        \
                 *:file | *:device) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$word\") ;;\n        \
                 *:folder) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- \"$word\") ;;\n        \
                 *:program) mapfile -t COMPREPLY < <(compgen -c -- \"$word\") ;;\n    \
             esac\n}\n",
    );
    out.push_str(&format!("complete -F _halfkey_agent {PROGRAM}\n"));
    out
}

fn bash_takes(takes: Takes) -> &'static str {
    match takes {
        Takes::Nothing | Takes::Text(_) => "''",
        Takes::File(_) => "file",
        Takes::Folder(_) => "folder",
        Takes::Device(_) => "device",
        Takes::Program(_) => "program",
    }
}

/// For zsh: `zsh/site-functions/_halfkey-agent`.
pub fn zsh() -> String {
    let mut out = format!(
        "#compdef {PROGRAM}\n# zsh completion of {PROGRAM}. Written from its command line's definition: edit that.\n\n\
         local curcontext=$curcontext state line\n\
         local -A opt_args\n\
         local -a commands=(\n"
    );
    for command in COMMANDS {
        out.push_str(&format!("    {}\n", quoted(&format!("{}:{}", command.name, command.about))));
    }
    out.push_str(")\n_arguments -C \\\n");
    for option in GLOBAL {
        out.push_str(&format!("    {} \\\n", zsh_option(option)));
    }
    out.push_str(
        "    '(- *)--help[help]' '(- *)--version[the version]' \\\n    \
             '1:command:->command' '*::argument:->argument'\n\
         case $state in\n    \
             command) _describe command commands ;;\n    \
             argument)\n        \
                 curcontext=${curcontext%:*:*}:halfkey-agent-$words[1]:\n        \
                 case $words[1] in\n",
    );
    for command in COMMANDS {
        out.push_str(&format!("            {})\n                _arguments \\\n", command.name));
        for option in all_options(command) {
            out.push_str(&format!("                    {} \\\n", zsh_option(option)));
        }
        let operands = match command.operands {
            Takes::Nothing => String::new(),
            Takes::Program(_) => " '*::program:_normal'".to_owned(),
            takes => format!(" {}", quoted(&format!("*:{}", zsh_takes(takes)))),
        };
        out.push_str(&format!("                    '(- *)--help[help]'{operands}\n                ;;\n"));
    }
    out.push_str("        esac\n        ;;\nesac\n");
    out
}

fn zsh_option(option: &Opt) -> String {
    let repeated = if option.repeated { "*" } else { "" };
    let words = short(option).replace('\\', "\\\\").replace(']', "\\]").replace('[', "\\[");
    let takes = match option.takes {
        Takes::Nothing => String::new(),
        Takes::Program(_) => ":program:_command_names:*::argument:_normal".to_owned(),
        takes => format!(":{}", zsh_takes(takes)),
    };
    quoted(&format!("{repeated}--{}[{words}]{takes}", option.name))
}

fn zsh_takes(takes: Takes) -> String {
    let action = match takes {
        Takes::Nothing | Takes::Text(_) => "",
        Takes::File(_) | Takes::Device(_) => "_files",
        Takes::Folder(_) => "_files -/",
        Takes::Program(_) => "_command_names",
    };
    format!("{}:{action}", takes.name().unwrap_or_default().to_ascii_lowercase())
}

/// For fish: `fish/vendor_completions.d/halfkey-agent.fish`.
pub fn fish() -> String {
    let mut out = format!(
        "# fish completion of {PROGRAM}. Written from its command line's definition: edit that.\n\
         complete -c {PROGRAM} -f\n\
         complete -c {PROGRAM} -l help -d help\n\
         complete -c {PROGRAM} -n __fish_use_subcommand -l version -d 'the version'\n"
    );
    for option in GLOBAL {
        out.push_str(&format!("complete -c {PROGRAM} {}\n", fish_option(option)));
    }
    for command in COMMANDS {
        let about = quoted(command.about);
        out.push_str(&format!(
            "complete -c {PROGRAM} -n __fish_use_subcommand -a {} -d {about}\n",
            command.name
        ));
    }
    for command in COMMANDS {
        let here = format!("complete -c {PROGRAM} -n '__fish_seen_subcommand_from {}'", command.name);
        for option in command.options {
            out.push_str(&format!("{here} {}\n", fish_option(option)));
        }
        match command.operands {
            Takes::Nothing | Takes::Text(_) => {}
            Takes::File(_) | Takes::Device(_) | Takes::Folder(_) => out.push_str(&format!("{here} -F\n")),
            Takes::Program(_) => out.push_str(&format!("{here} -a '(__fish_complete_subcommand)'\n")),
        }
    }
    out
}

fn fish_option(option: &Opt) -> String {
    let takes = match option.takes {
        Takes::Nothing => "",
        Takes::Text(_) => " -x",
        Takes::File(_) | Takes::Device(_) => " -r -F",
        Takes::Folder(_) => " -x -a '(__fish_complete_directories)'",
        Takes::Program(_) => " -x -a '(__fish_complete_command)'",
    };
    format!("-l {}{takes} -d {}", option.name, quoted(short(option)))
}

/// In single quotes of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

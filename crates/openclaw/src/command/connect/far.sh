# Asks the openclaw of the far host on behalf of `openclaw connect`. Sent to `sh -s` over ssh and nowhere stored.
# Words: <tag> <verb> [words of the verb]; every line meant for us begins with the tag, so that greetings of login
# scripts cannot be taken for an answer. The shared secret of a gateway never passes through here.

tag=$1
say() { printf '%s %s\n' "$tag" "$*"; }
one_line() { printf '%s' "$1" | tr '\r\n' '  '; }

# A session that runs one command has a short PATH: add where openclaw and node are commonly put.
look_further() {
  for dir in "$HOME/.local/bin" "$HOME/bin" "$HOME/.cargo/bin" "$HOME/.npm-global/bin" "$HOME/.openclaw/bin" \
    "$HOME/.volta/bin" "$HOME/.bun/bin" "$HOME/.local/share/pnpm" "$HOME/Library/pnpm" "$HOME/.asdf/shims" \
    "$HOME/.local/share/mise/shims" "$HOME"/.nvm/versions/node/*/bin "$HOME"/.local/share/fnm/aliases/default/bin \
    /usr/local/bin /opt/homebrew/bin /opt/openclaw/bin /home/linuxbrew/.linuxbrew/bin /snap/bin; do
    [ -d "$dir" ] && PATH=$PATH:$dir
  done
  export PATH
}

find_cli() {
  look_further
  cli=$(command -v openclaw)
  case $cli in
    /*) ;;
    *)
      # Whatever else this person's login shell sets up.
      cli=$("${SHELL:-/bin/sh}" -lc 'command -v openclaw' 2>/dev/null | tail -n 1)
      case $cli in /*) PATH=$PATH:${cli%/*} ;; *) cli= ;; esac
      ;;
  esac
  [ -n "$cli" ] && [ -x "$cli" ]
}

# Who listens on a port of this machine, as far as anybody may know.
owner_of() {
  hex=$(printf ':%04X' "$1" 2>/dev/null) || return
  uid=$(awk -v port="$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $8; exit }' \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null)
  if [ -n "$uid" ]; then
    name=$(id -nu "$uid" 2>/dev/null || awk -F: -v id="$uid" '$3 == id { print $1; exit }' /etc/passwd 2>/dev/null)
    say listener "$1 ${name:-$uid}"
  fi
}

invite() { # <port or -> <scopes> <limited|full> <label> <list|nolist>
  if [ "$kind" = official ]; then
    if [ "$1" = - ]; then
      { port=$("$cli" config get gateway.port 2>/dev/null | tail -n 1); say port "$port"; } &
    fi
    profile=
    [ "$3" = limited ] && profile=',"bootstrapProfile":"limited"'
    answer=$("$cli" gateway call device.pair.setupCode --json \
      --params "{\"publicUrl\":\"ws://127.0.0.1\",\"includeQr\":false$profile}" 2>/dev/null)
    code=$?
    wait
  else
    answer=$("$cli" devices invite --json --role operator --scopes "$2" --ttl 2m --label "$4")
    code=$?
  fi
  say answer "$code $(one_line "$answer")"
  if [ "$code" != 0 ]; then
    port=${1#-}
    owner_of "${port:-${OPENCLAW_GATEWAY_PORT:-18789}}"
  elif [ "$5" = list ]; then
    say devices "$(one_line "$("$cli" devices list --json 2>/dev/null)")"
  fi
}

approve() { # <request id>
  answer=$("$cli" devices approve "$1" --json 2>/dev/null)
  say answer "$? $(one_line "$answer")"
}

remove() { # <device id>
  answer=$("$cli" devices remove "$1" --json 2>/dev/null)
  code=$?
  say answer "$code $(one_line "$answer")"
  [ "$code" = 0 ] || say devices "$(one_line "$("$cli" devices list --json 2>/dev/null)")"
}

main() {
  say user "$(id -un)"
  say host "$(uname -n)"
  if find_cli; then
    say cli "$cli"
    version=$("$cli" --version 2>/dev/null | head -n 1)
    say version "$version"
    # The official releases count by years, this program does not.
    case " $version" in *" 20"[2-9][0-9].[0-9]*) kind=official ;; *) kind=ours ;; esac
    say kind "$kind"
    verb=$2
    shift 2
    "$verb" "$@"
  else
    say missing openclaw
    owner_of 18789
  fi
  say end
}

main "$@" </dev/null

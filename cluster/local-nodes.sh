#!/usr/bin/env bash
# Several Ray nodes on this machine, each with an address of its own, that can be cut off and killed.
#
#   sudo cluster/local-nodes.sh up 3                 node 0 is the head; all joined by a bridge
#   sudo cluster/local-nodes.sh run 0 COMMAND ...    as on that node (drivers belong on one:
#                                                    the driver runs where the command does, and a
#                                                    submitted job where --entrypoint-resources says)
#   sudo cluster/local-nodes.sh cut 2                pull its network cable; `heal 2` plugs it in
#   sudo cluster/local-nodes.sh kill 2               kill -9 everything on it; `start 2` begins anew
#   sudo cluster/local-nodes.sh down
#
# Settings: NODES_NAME (vrl; at most 8 letters), NODES_SUBNET (10.77.0), NODES_CPUS (2) and
# NODES_STORE_MB (256) of every node, NODES_HEAD_CPUS (NODES_CPUS).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

name=${NODES_NAME:-vrl}
subnet=${NODES_SUBNET:-10.77.0}
state=${TMPDIR:-/tmp}/$name-nodes
head=$subnet.10

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_TOKEN
# A node that cannot be reached is given up after some 10 s; Ray's own limits take over a minute.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=4

fail() { echo "error: $*" >&2; exit 1; }

on() { ip netns exec "$name-$1" "${@:2}"; }

known() {
  [[ ${1:-} =~ ^[0-9]+$ ]] && ip netns list | grep -qE "^$name-$1( |$)" \
    || fail "no node '${1:-}'; nodes are $(ip netns list | grep -oE "^$name-[0-9]+" | tr '\n' ' ')"
}

wire() {  # NODE: a namespace with one cable to the bridge
  ip netns add "$name-$1"
  ip link add "$name-v$1" type veth peer name eth0 netns "$name-$1"
  ip link set "$name-v$1" master "$name-br" up
  on "$1" ip address add "$subnet.$((10 + $1))/24" dev eth0
  on "$1" ip link set eth0 up
  on "$1" ip link set lo up
  # Leads nowhere, but Ray finds its own address by asking which way the world lies.
  on "$1" ip route add default via "$subnet.1"
}

start() {  # NODE
  local role=(--address "$head:6379") cpus=${NODES_CPUS:-2}
  [[ $1 != 0 ]] || cpus=${NODES_HEAD_CPUS:-$cpus}
  [[ $1 != 0 ]] || role=(--head --port 6379 --dashboard-host "$head" --temp-dir "$state/ray")
  on "$1" ray start "${role[@]}" --node-ip-address "$subnet.$((10 + $1))" \
    --num-cpus "$cpus" --object-store-memory $((${NODES_STORE_MB:-256} << 20)) \
    --disable-usage-stats >"$state/node-$1.log" 2>&1 \
    || { cat "$state/node-$1.log" >&2; fail "node $1 did not start"; }
}

stop() {  # NODE: everything that runs in its namespace, and nothing else
  local pids
  while pids=$(ip netns pids "$name-$1") && [[ -n $pids ]]; do
    kill -9 $pids 2>/dev/null || true
    sleep 0.1
  done
}

up() {
  [[ ${1:-} =~ ^[1-9][0-9]*$ && $1 -le 200 ]] || fail "up needs a number of nodes from 1 to 200"
  [[ ! -e $state ]] || fail "$state is there already: first $0 down"
  ip link add "$name-br" type bridge 2>/dev/null \
    || fail "this system does not allow network namespaces; tests/ray has one-node clusters"
  trap down EXIT
  mkdir -m 700 "$state"
  (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$state/token")
  ip address add "$subnet.1/24" dev "$name-br"
  ip link set "$name-br" up
  for ((node = 0; node < $1; node++)); do
    wire "$node"
    start "$node"
  done
  trap - EXIT
  echo "$1 nodes; dashboard http://$head:8265; RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token"
}

down() {
  for space in $(ip netns list | grep -oE "^$name-[0-9]+" || true); do
    stop "${space##*-}"
    ip link delete "$name-v${space##*-}" 2>/dev/null || true  # else it lingers for a while
    ip netns delete "$space"
  done
  ip link delete "$name-br" 2>/dev/null || true
  rm -rf "$state"
}

[[ $(id -u) == 0 ]] || fail "network namespaces need root: sudo $0 $*"
command -v ip >/dev/null || fail "the command ip is missing: install iproute2"
case "${1:-}" in
  up) up "${2:-}" ;;
  down) down ;;
  start) known "${2:-}"; start "$2" ;;
  kill) known "${2:-}"; stop "$2" ;;
  cut) known "${2:-}"; ip link set "$name-v$2" down ;;
  heal) known "${2:-}"; ip link set "$name-v$2" up ;;
  run)  # in place of this script, so that whoever kills it kills the command
    known "${2:-}"
    exec ip netns exec "$name-$2" env RAY_ADDRESS="$head:6379" "${@:3}"
    ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

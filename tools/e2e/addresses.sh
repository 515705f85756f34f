# The addresses of the test node. They exist only in its network namespace.
# shellcheck shell=bash disable=SC2034
NODE_NAME=node
NODE_ADDRESS=10.209.0.1
POD_RANGE=10.209.0.0/24
SERVICE_RANGE=10.210.0.0/24
# The Service `kubernetes`.
API_SERVICE=10.210.0.1

"""What the end-to-end tests share: real servers, raw clients, tokens, and waiting for conditions."""

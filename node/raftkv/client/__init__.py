"""The client library: `raftkv.client.http.KvClient`, and its errors in `raftkv.client.errors`."""

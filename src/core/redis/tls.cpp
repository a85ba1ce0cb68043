/*-------------------------------------------------------------------------
 *
 * tls.cpp
 *		Encryption under a connection; see tls.hpp.
 *
 * OpenSSL keeps its errors in a queue of the thread, which the server's own
 * connection to its client uses as well: it is emptied before each call and
 * after each failure.
 *
 *-------------------------------------------------------------------------
 */
#include <new>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "core/base/error.hpp"
#include "core/redis/reply.hpp"
#include "core/redis/tls.hpp"

namespace cache_ext::redis {

/* Cipher bytes that may wait to be sent before more is encrypted. */
constexpr size_t kMostWaiting = 256 * 1024;

namespace {

struct Free
{
	void operator()(SSL_CTX *context) const { SSL_CTX_free(context); }
	void operator()(SSL *ssl) const { SSL_free(ssl); }
	void operator()(BIO *bio) const { BIO_free(bio); }
	void operator()(EVP_PKEY *key) const { EVP_PKEY_free(key); }
};

template <typename T> using Owned = std::unique_ptr<T, Free>;

[[noreturn]] void
refuse(const std::string &detail, const char *hint = "")
{
	throw Error(kCannotConnect, "could not set up an encrypted connection to Redis", detail, hint);
}

/* What OpenSSL's queue says last, or a word of ours when it says nothing; empties the queue. */
std::string
take_reason(const char *otherwise)
{
	std::string reason = otherwise;

	if (unsigned long code = ERR_peek_last_error())
	{
		const char *text = ERR_reason_error_string(code);

		reason = text != nullptr ? text : "error " + std::to_string(code);
	}
	ERR_clear_error();
	return readable(reason);
}

/* After the handshake; often it is only now that the server says why it does not want us. */
[[noreturn]] void
break_off()
{
	throw Error(kConnectionFailure, "lost the encrypted connection to Redis",
	            "OpenSSL says: " + take_reason("the server ended it") + ".");
}

/* A key that wants a passphrase is refused: the default would ask for one at the terminal. */
int
refuse_passphrase(char *, int, int, void *)
{
	return -1;
}

void
load_authorities(SSL_CTX *context, const TlsSettings &settings)
{
	if (settings.ca_file.empty())
	{
		if (SSL_CTX_set_default_verify_paths(context) != 1)
			refuse("The system's certificate authorities could not be read: " +
			       take_reason("unknown error") + ".");
	}
	else if (SSL_CTX_load_verify_locations(context, settings.ca_file.c_str(), nullptr) != 1)
		refuse("The file of certificate authorities could not be read: " +
		           take_reason("unknown error") + ".",
		       "Check cache_ext.redis_tls_ca_file.");

	/* Whoever is in the file is trusted as they are, a server's own certificate, too. */
	X509_STORE_set_flags(SSL_CTX_get_cert_store(context), X509_V_FLAG_PARTIAL_CHAIN);
}

void
load_own_certificate(SSL_CTX *context, const TlsSettings &settings)
{
	if (settings.certificate_file.empty() && settings.key.empty())
		return;
	if (settings.certificate_file.empty() || settings.key.empty())
		refuse("A client certificate and its key are needed together.",
		       "Set cache_ext.redis_tls_certificate_file and cache_ext.redis_tls_key_file.");
	if (SSL_CTX_use_certificate_chain_file(context, settings.certificate_file.c_str()) != 1)
		refuse("The client certificate could not be read: " + take_reason("unknown error") + ".",
		       "Check cache_ext.redis_tls_certificate_file.");

	Owned<BIO> text(BIO_new_mem_buf(settings.key.data(), static_cast<int>(settings.key.size())));

	if (text == nullptr)
		throw std::bad_alloc();

	Owned<EVP_PKEY> key(PEM_read_bio_PrivateKey(text.get(), nullptr, refuse_passphrase, nullptr));

	if (key == nullptr)
		refuse("The client key could not be read: " + take_reason("unknown error") + ".",
		       "It must be in PEM form and without a passphrase.");
	if (SSL_CTX_use_PrivateKey(context, key.get()) != 1)
		refuse("The client key does not belong to the certificate: " +
		       take_reason("unknown error") + ".");
}

/* A number is compared with the certificate's addresses, a name with its names. */
void
name_host(SSL *ssl, const TlsSettings &settings)
{
	X509_VERIFY_PARAM *parameters = SSL_get0_param(ssl);
	bool number = X509_VERIFY_PARAM_set1_ip_asc(parameters, settings.host.c_str()) == 1;

	ERR_clear_error();
	if (!number && SSL_set_tlsext_host_name(ssl, settings.host.c_str()) != 1)
		refuse("The host name cannot be sent: " + take_reason("unknown error") + ".");
	if (!settings.verify_host)
	{
		if (number)
			X509_VERIFY_PARAM_set1_ip(parameters, nullptr, 0);
		return;
	}
	X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (!number &&
	    X509_VERIFY_PARAM_set1_host(parameters, settings.host.c_str(), settings.host.size()) != 1)
		refuse("The host name cannot be verified: " + take_reason("unknown error") + ".");
}

} /* namespace */

struct Tls::Parts
{
	Owned<SSL_CTX> context;
	Owned<SSL> ssl;
	BIO *in = nullptr;  /* cipher bytes that arrived; ssl owns both */
	BIO *out = nullptr; /* cipher bytes to be sent */
};

Tls::Tls(const TlsSettings &settings) : parts_(new Parts())
{
	ERR_clear_error();
	parts_->context.reset(SSL_CTX_new(TLS_client_method()));
	if (parts_->context == nullptr)
		refuse("OpenSSL could not be set up: " + take_reason("unknown error") + ".");

	SSL_CTX *context = parts_->context.get();

	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	load_authorities(context, settings);
	load_own_certificate(context, settings);

	parts_->ssl.reset(SSL_new(context));

	Owned<BIO> in(BIO_new(BIO_s_mem()));
	Owned<BIO> out(BIO_new(BIO_s_mem()));

	if (parts_->ssl == nullptr || in == nullptr || out == nullptr)
		throw std::bad_alloc();
	/* Empty means "not yet", not "ended". */
	BIO_set_mem_eof_return(in.get(), -1);
	parts_->in = in.release();
	parts_->out = out.release();
	SSL_set_bio(parts_->ssl.get(), parts_->in, parts_->out);
	SSL_set_connect_state(parts_->ssl.get());
	name_host(parts_->ssl.get(), settings);
}

Tls::~Tls() = default;

/* Move what OpenSSL wants to send where the caller sees it. */
void
Tls::collect()
{
	char buffer[16 * 1024];
	int count;

	while ((count = BIO_read(parts_->out, buffer, sizeof(buffer))) > 0)
		outgoing_.append(buffer, static_cast<size_t>(count));
}

bool
Tls::shake_hands()
{
	ERR_clear_error();

	int result = SSL_do_handshake(parts_->ssl.get());

	collect();
	if (result == 1)
		return true;
	if (SSL_get_error(parts_->ssl.get(), result) == SSL_ERROR_WANT_READ)
	{
		ERR_clear_error();
		return false;
	}

	long verdict = SSL_get_verify_result(parts_->ssl.get());

	if (verdict != X509_V_OK)
	{
		ERR_clear_error();
		refuse(
		    std::string("The server's certificate is not trusted: ") +
		        X509_verify_cert_error_string(verdict) + ".",
		    "cache_ext.redis_tls_ca_file names the authorities that are trusted; the certificate "
		    "must name the host that the address names.");
	}
	refuse("The handshake failed: " + take_reason("the server ended it") + ".");
}

size_t
Tls::write(std::string_view plain)
{
	size_t written = 0;

	if (plain.empty() || outgoing().size() >= kMostWaiting)
		return 0;
	ERR_clear_error();
	if (SSL_write_ex(parts_->ssl.get(), plain.data(), plain.size(), &written) != 1)
		break_off();
	collect();
	return written;
}

size_t
Tls::read(char *buffer, size_t size)
{
	size_t count = 0;

	ERR_clear_error();
	if (SSL_read_ex(parts_->ssl.get(), buffer, size, &count) == 1)
		return count;

	int error = SSL_get_error(parts_->ssl.get(), 0);

	collect(); /* an answer to a message of the protocol itself */
	if (error == SSL_ERROR_WANT_READ)
	{
		ERR_clear_error();
		return 0;
	}
	if (error == SSL_ERROR_ZERO_RETURN)
	{
		closed_ = true;
		return 0;
	}
	break_off();
}

std::string_view
Tls::outgoing() const
{
	return std::string_view(outgoing_).substr(sent_);
}

void
Tls::sent(size_t count)
{
	sent_ += count;
	if (sent_ >= outgoing_.size())
	{
		outgoing_.clear();
		sent_ = 0;
		if (outgoing_.capacity() > kMostWaiting)
			outgoing_.shrink_to_fit();
	}
}

void
Tls::received(std::string_view cipher)
{
	if (BIO_write(parts_->in, cipher.data(), static_cast<int>(cipher.size())) !=
	    static_cast<int>(cipher.size()))
		throw std::bad_alloc();
}

} /* namespace cache_ext::redis */
